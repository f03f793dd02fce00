package fabric

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// Error is what is wrong with a document: where, what, and what would be
// right. It prints as one line, file:line:column first, as compilers do.
type Error struct {
	File string
	// Line and Column count from 1; both are 0 where the file itself could
	// not be read.
	Line, Column int
	Field        string // as in nodes.leaf1.ports[0]; empty for the document as a whole
	Problem      string
	Hint         string // what would be right; may be empty
	Err          error  // what the system said, for errors.Is; may be nil
}

// Error gives file:line:column: field: problem; hint.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	if e.Field != "" {
		b.WriteString(": " + e.Field)
	}
	b.WriteString(": " + e.Problem)
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// Unwrap gives the system's error behind this one, if there is any.
func (e *Error) Unwrap() error { return e.Err }

// place is where a value stands in the document.
type place struct{ line, column int }

func (p place) before(q place) bool {
	return p.line < q.line || p.line == q.line && p.column < q.column
}

// report collects what is wrong with one document and where its values stand.
type report struct {
	file   string
	places map[string]place // by field
	errors []*Error
}

func newReport(file string) *report {
	return &report{file: file, places: map[string]place{}}
}

func (r *report) fail(at place, field, problem, hint string) {
	r.errors = append(r.errors, &Error{
		File: r.file, Line: at.line, Column: at.column,
		Field: field, Problem: problem, Hint: hint,
	})
}

// failField reports a field by its name. A field that the document does not
// write, because its value was derived, is found where its parent stands.
func (r *report) failField(field, problem, hint string) {
	r.fail(r.placeOf(field), field, problem, hint)
}

func (r *report) placeOf(field string) place {
	for parent := field; parent != ""; {
		if at, ok := r.places[parent]; ok {
			return at
		}
		parent = parent[:max(strings.LastIndexAny(parent, ".["), 0)]
	}
	return place{1, 1}
}

// sets tells whether the document itself writes that field.
func (r *report) sets(field string) bool {
	_, ok := r.places[field]
	return ok
}

// first is the error nearest to the document's start, nil if there is none.
// Only one is reported: the others often follow from it.
func (r *report) first() error {
	if len(r.errors) == 0 {
		return nil
	}
	first := r.errors[0]
	for _, e := range r.errors[1:] {
		if (place{e.Line, e.Column}).before(place{first.Line, first.Column}) {
			first = e
		}
	}
	return first
}

// show makes text from the document fit for an error of one short line.
func show(text string) string {
	const most = 64
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	odd := func(r rune) bool { return !unicode.IsPrint(r) || r == '"' }
	if text != strings.TrimSpace(text) || text == "" || strings.ContainsFunc(text, odd) {
		return strconv.Quote(text)
	}
	return text
}
