package ledger

import _ "github.com/anishathalye/porcupine"
