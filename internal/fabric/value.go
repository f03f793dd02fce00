package fabric

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Bounds of one document, so that none can exhaust the agent that reads it.
const (
	maxSize    = 4 << 20 // bytes
	maxEntries = 4096    // of one mapping
	maxItems   = 256     // of one list
	maxErrors  = 100     // after so many the rest is not looked at
)

// value is one YAML node with its field's name. Its methods turn it into a
// Go value; where they cannot, they report the error and return false.
type value struct {
	*report
	node  *yaml.Node
	at    place
	field string
}

func (r *report) value(node *yaml.Node, at place, field string) value {
	r.places[field] = at
	return value{report: r, node: node, at: at, field: field}
}

func placeOfNode(n *yaml.Node) place { return place{n.Line, n.Column} }

func (v value) wrong(problem, hint string) {
	if v.field == "" {
		problem = "the document " + problem
	}
	v.fail(v.at, v.field, problem, hint)
}

// is tells whether the value has that kind, and if not what it is instead.
func (v value) is(kind yaml.Kind, hint string) bool {
	switch {
	case len(v.errors) >= maxErrors:
	case v.node.Kind == yaml.AliasNode:
		v.wrong("is an alias (*"+show(v.node.Value)+"), which the document does not use", "write the value itself")
	case v.node.ShortTag() == "!!null":
		v.wrong("is empty", hint)
	case v.node.Kind != kind:
		v.wrong("is "+kindNames[v.node.Kind], hint)
	default:
		return true
	}
	return false
}

var kindNames = map[yaml.Kind]string{
	yaml.MappingNode:  "a mapping",
	yaml.SequenceNode: "a list",
	yaml.ScalarNode:   "a single value",
}

// entry is a key of a mapping with its value.
type entry struct {
	key   string
	at    place // of the key
	value *yaml.Node
}

// entries are those of a mapping, in the document's order, each key once.
func (v value) entries(hint string) ([]entry, bool) {
	if !v.is(yaml.MappingNode, hint) {
		return nil, false
	}
	if n := len(v.node.Content) / 2; n > maxEntries {
		v.wrong(fmt.Sprintf("has %d entries", n), fmt.Sprintf("at most %d fit into one document", maxEntries))
		return nil, false
	}
	var entries []entry
	seen := map[string]place{}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key := v.node.Content[i]
		at := placeOfNode(key)
		if key.Kind != yaml.ScalarNode {
			v.fail(at, v.field, "has a key that is no word", "write each line as key: value")
			return nil, false
		}
		if first, ok := seen[key.Value]; ok {
			v.fail(at, v.child(key.Value), fmt.Sprintf("is set twice, first in line %d", first.line), "keep one of the two")
			return nil, false
		}
		seen[key.Value] = at
		entries = append(entries, entry{key.Value, at, v.node.Content[i+1]})
	}
	return entries, true
}

func (v value) child(key string) string {
	if v.field == "" {
		return show(key)
	}
	return v.field + "." + show(key)
}

// named are the entries of a mapping whose keys the operator chooses. They
// stand where their keys do.
func (v value) named(hint string) (names []string, values []value) {
	entries, _ := v.entries(hint)
	for _, e := range entries {
		names = append(names, e.key)
		values = append(values, v.value(e.value, e.at, v.child(e.key)))
	}
	return names, values
}

// mapping is a mapping whose keys the document's form gives.
type mapping struct {
	value
	values map[string]value
}

// object takes a mapping that may have only these keys.
func (v value) object(keys []string) (mapping, bool) {
	entries, ok := v.entries("write a mapping of " + strings.Join(keys, ", "))
	if !ok {
		return mapping{}, false
	}
	m := mapping{value: v, values: map[string]value{}}
	for _, e := range entries {
		if !slices.Contains(keys, e.key) {
			v.fail(e.at, v.child(e.key), "is not a key that exists here", choice(e.key, keys))
			ok = false
			continue
		}
		m.values[e.key] = v.value(e.value, placeOfNode(e.value), v.child(e.key))
	}
	return m, ok
}

// optional is what parse makes of the key, or otherwise where it is not set.
func optional[T any](m mapping, key string, otherwise T, parse func(value) (T, bool)) T {
	v, ok := m.values[key]
	if !ok {
		return otherwise
	}
	if t, ok := parse(v); ok {
		return t
	}
	return otherwise
}

// required is what parse makes of the key; the hint says what to write where
// it is missing.
func required[T any](m mapping, key, hint string, parse func(value) (T, bool)) T {
	var zero T
	v, ok := m.values[key]
	if !ok {
		m.fail(m.at, m.child(key), "is missing", hint)
		return zero
	}
	t, _ := parse(v)
	return t
}

// list parses a list item by item; at least so many must be there.
func list[T any](least int, parse func(value) (T, bool)) func(value) ([]T, bool) {
	return func(v value) ([]T, bool) {
		if !v.is(yaml.SequenceNode, "write a list, as in [a, b]") {
			return nil, false
		}
		if n := len(v.node.Content); n < least {
			v.wrong("is an empty list", "name at least one")
			return nil, false
		} else if n > maxItems {
			v.wrong(fmt.Sprintf("has %d items", n), fmt.Sprintf("at most %d fit", maxItems))
			return nil, false
		}
		items, whole := make([]T, 0, len(v.node.Content)), true
		for i, node := range v.node.Content {
			item := v.value(node, placeOfNode(node), v.field+"["+strconv.Itoa(i)+"]")
			t, ok := parse(item)
			whole = whole && ok
			items = append(items, t)
		}
		return items, whole
	}
}

// scalar takes a single value of that YAML type.
func (v value) scalar(tag, hint string) (string, bool) {
	if !v.is(yaml.ScalarNode, hint) {
		return "", false
	}
	if v.node.ShortTag() == tag {
		return v.node.Value, true
	}
	switch quoted := v.node.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0; {
	case tag == "!!str":
		hint += ", in quotes"
	case quoted:
		hint += ", without quotes"
	}
	v.wrong(show(v.node.Value)+" is "+notOfTag[tag], hint)
	return "", false
}

var notOfTag = map[string]string{"!!str": "no text", "!!int": "no whole number", "!!bool": "neither true nor false"}

// text takes text that is not empty.
func (v value) text(hint string) (string, bool) {
	text, ok := v.scalar("!!str", hint)
	if ok && text == "" {
		v.wrong("is empty", hint)
		return "", false
	}
	return text, ok
}

func (v value) boolean() (bool, bool) {
	if v.node.Kind == yaml.ScalarNode && v.node.Tag == "!!str" && (v.node.Value == "on" || v.node.Value == "off") {
		return v.node.Value == "on", true // what YAML 1.1 took for booleans, and people write
	}
	text, ok := v.scalar("!!bool", "write true or false")
	return strings.EqualFold(text, "true"), ok
}

// integer takes a whole number within both limits.
func integer(least, most int64) func(value) (int64, bool) {
	hint := fmt.Sprintf("write a whole number from %d to %d", least, most)
	return func(v value) (int64, bool) {
		text, ok := v.scalar("!!int", hint)
		if !ok {
			return 0, false
		}
		n, err := strconv.ParseInt(text, 0, 64)
		if err != nil || n < least || n > most {
			v.wrong(show(text)+" is out of range", hint)
			return 0, false
		}
		return n, true
	}
}

// duration takes a time within both limits, in whole units.
func duration(least, most, unit time.Duration, example string) func(value) (time.Duration, bool) {
	hint := fmt.Sprintf("write a time such as %s, from %s to %s", example, brief(least), brief(most))
	return func(v value) (time.Duration, bool) {
		text, ok := "0", true
		switch number := v.node.ShortTag() == "!!int"; {
		case !number:
			text, ok = v.text(hint)
		case v.node.Value != text:
			v.wrong(show(v.node.Value)+" has no unit", hint)
			ok = false
		}
		if !ok {
			return 0, false
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			v.wrong(show(text)+" is no time", hint)
			return 0, false
		}
		if d < least || d > most {
			v.wrong(show(text)+" is out of range", hint)
			return 0, false
		}
		if d%unit != 0 {
			v.wrong(fmt.Sprintf("%s is no multiple of %s", show(text), brief(unit)), hint)
			return 0, false
		}
		return d, true
	}
}

// brief prints a time without the zero units that Duration.String appends.
func brief(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
