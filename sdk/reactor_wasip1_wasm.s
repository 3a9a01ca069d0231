// Nothing: a package with this file may declare functions that have their body elsewhere.
