package fabric

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Load reads the document at path. What is wrong with it is an *Error.
func Load(path string) (*Fabric, error) {
	data, err := read(path)
	if err != nil {
		return nil, &Error{File: path, Problem: "cannot be read: " + err.Error(),
			Hint: "name a file that exists and that this user may read", Err: err}
	}
	return Parse(path, data, filepath.Dir(path))
}

// read takes no more of the file than is needed to see that it is too big.
func read(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, cause(err)
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	return data, cause(err)
}

// cause is the system's error without operation and path, which the message
// around it names.
func cause(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

// Parse makes a Fabric of a document; name is what its errors call it, and
// dir is where a relative password_file begins. What is wrong is an *Error,
// the first one in the document.
func Parse(name string, data []byte, dir string) (*Fabric, error) {
	r := newReport(name)
	root := r.yaml(data)
	if root == nil {
		return nil, r.first()
	}
	f, store := decode(r.value(root, placeOfNode(root), ""), dir)
	if err := r.first(); err != nil {
		return nil, err
	}
	derive(f, r)
	deriveStore(f, store)
	validate(f, r)
	validateStore(f, store, r)
	if err := r.first(); err != nil {
		return nil, err
	}
	return f, nil
}

// yaml is the root of the one YAML document that data must hold, nil after an
// error.
func (r *report) yaml(data []byte) *yaml.Node {
	if !r.plainText(data) {
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var root, second yaml.Node
	if err := decoder.Decode(&root); err != nil && !errors.Is(err, io.EOF) {
		r.failSyntax(data, err)
		return nil
	} else if err != nil || root.Content[0].ShortTag() == "!!null" {
		r.fail(place{1, 1}, "", "the document is empty", "it needs fabric, underlay and nodes")
		return nil
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		r.fail(placeOfNode(&second), "", "a second document begins here", "one file describes one fabric: remove the line ---, or what follows it")
		return nil
	case !errors.Is(err, io.EOF):
		r.failSyntax(data, err)
		return nil
	}
	return root.Content[0]
}

// plainText refuses what is no YAML text at all, with its place, which the
// YAML library would not give.
func (r *report) plainText(data []byte) bool {
	if len(data) > maxSize {
		r.fail(place{1, 1}, "", fmt.Sprintf("the document is longer than %d MiB", maxSize>>20), "is this the right file?")
		return false
	}
	at, indent := place{1, 1}, true
	for i := 0; i < len(data); {
		c, size := utf8.DecodeRune(data[i:])
		switch {
		case c == utf8.RuneError && size == 1:
			r.fail(at, "", fmt.Sprintf("byte 0x%02x is no UTF-8", data[i]), "write the document as UTF-8 text")
			return false
		case !printable(c) && (c != byteOrderMark || i > 0), c == '\r' && !bytes.HasPrefix(data[i:], []byte("\r\n")):
			r.fail(at, "", fmt.Sprintf("character %U does not belong into text", c), "write the document as plain text")
			return false
		case c == '\t' && indent && !blank(data[i:]):
			r.fail(at, "", "a tab indents this line", "indent with spaces")
			return false
		}
		i += size
		if c == '\n' {
			at, indent = place{at.line + 1, 1}, true
			continue
		}
		at.column++
		indent = indent && c == ' '
	}
	return true
}

// byteOrderMark may be the first character of a text (YAML 1.2 §5.2).
const byteOrderMark = 0xfeff

// printable tells what a text may consist of: what YAML 1.2 §5.1 allows, less
// the line breaks that editors do not count.
func printable(c rune) bool {
	switch {
	case c == '\t', c == '\n', c == '\r':
		return true
	case c < 0x20, 0x7f <= c && c < 0xa0, c == 0x2028, c == 0x2029, c == byteOrderMark, c == 0xfffe, c == 0xffff:
		return false
	}
	return true
}

// blank tells whether nothing but space follows on the line.
func blank(data []byte) bool {
	line, _, _ := bytes.Cut(data, []byte("\n"))
	return len(bytes.TrimSpace(line)) == 0
}

// syntaxError is the form of the YAML library's errors.
var syntaxError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

func splitSyntaxError(err error) (line int, problem string) {
	m := syntaxError.FindStringSubmatch(err.Error())
	if m == nil {
		return 1, err.Error()
	}
	line, _ = strconv.Atoi(m[1])
	return max(line, 1), m[2]
}

// failSyntax reports an error of the YAML library.
func (r *report) failSyntax(data []byte, err error) {
	begin, problem := splitSyntaxError(err)
	lines := bytes.SplitAfter(data, []byte("\n"))
	line := min(begin, len(lines))
	if len(data) <= maxSearched {
		line = breakingLine(lines, line, problem)
	}
	text := lines[line-1]
	column := len(text) - len(bytes.TrimLeft(text, " ")) + 1
	r.fail(place{line, column}, "", "this is no YAML: "+show(problem), syntaxHint(problem))
}

// maxSearched is the size, in bytes, up to which a document is read again and
// again to find the line that breaks it.
const maxSearched = 512 << 10

// breakingLine is the line that the problem comes from. The library names at
// best the one where the broken block begins; what breaks it is the first
// line that brings the same problem about when the text ends there.
func breakingLine(lines [][]byte, begin int, problem string) int {
	return begin + sort.Search(len(lines)-begin, func(after int) bool {
		var n yaml.Node
		text := bytes.Join(lines[:begin+after], nil)
		err := yaml.NewDecoder(bytes.NewReader(text)).Decode(&n)
		if err == nil || errors.Is(err, io.EOF) {
			return false
		}
		_, same := splitSyntaxError(err)
		return same == problem
	})
}

// syntaxHint says what the library's problem mostly comes from.
func syntaxHint(problem string) string {
	switch {
	case strings.Contains(problem, "cannot start any token"),
		strings.Contains(problem, "alphabetic or numeric character"),
		strings.Contains(problem, "unknown anchor"):
		return `put names that begin with * & @ % or a backtick in quotes, as in "*"`
	case strings.Contains(problem, "mapping values are not allowed"):
		return "put text that has a colon in it in quotes, and begin each key on a line of its own"
	case strings.Contains(problem, "end of stream"):
		return "close each quote"
	case strings.Contains(problem, "expected ',' or"):
		return "close each bracket and brace, and put commas between"
	case strings.Contains(problem, "did not find expected key"):
		return "indent the keys of one mapping alike"
	}
	return "indent with spaces, put a space behind each colon, close each bracket and quote"
}
