// Package secret keeps what nobody is to read out of logs and encodings.
package secret

// Text is a value that no log and no encoding shows.
type Text string

// String hides the value.
func (t Text) String() string {
	if t == "" {
		return ""
	}
	return "(secret)"
}

// GoString hides the value from %#v.
func (t Text) GoString() string { return t.String() }

// MarshalText hides the value from encoders and structured logs.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.String()), nil }
