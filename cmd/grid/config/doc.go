// Package config reads and writes the files that tell the grid command what it was not told on its command line: settings, and
// contexts, which are names for grids. What settings there are it is told, since they are the flags of the command.
//
// A file of settings is YAML, one mapping of commands to their flags:
//
//	up:
//	  workers: 4
//	  label: [gpu=false, rack=r12]
//
// It is read strictly, and changed in place, with its comments. It is written by people and may be any file of theirs; that of
// contexts holds tokens, is written by the command alone, and is read only if nobody else can read it.
package config
