package fabric

import _ "embed"

//go:embed schema.json
var schema string

// Schema is the JSON Schema (draft 2020-12) of the document, for editors. It
// knows what the document is made of; what its parts mean to each other, and
// to the machine, only Load knows.
func Schema() []byte { return []byte(schema) }
