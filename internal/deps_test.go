// Package internal_test holds the project's source to ARCHITECTURE.md: who
// may import whom, which libraries are used where, and that files which the
// documents name exist.
package internal_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module = "frond"
	tests  = "tests" // in the table of libraries: no program may use it
)

// architecture is what the tables of ARCHITECTURE.md allow.
type architecture struct {
	packages  map[string][]string // by path in the module: those of ours that it may import
	libraries map[string][]string // by module path: those of ours that may import it
}

// tableRow matches a row whose first cell is code and whose last is a list of names.
var tableRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|.*\\| ([^|]*) \\|$")

func readArchitecture(t *testing.T) architecture {
	t.Helper()
	text, err := os.ReadFile("../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	a := architecture{packages: map[string][]string{}, libraries: map[string][]string{}}
	for _, row := range tableRow.FindAllStringSubmatch(string(text), -1) {
		name, others := row[1], strings.Split(row[2], ", ")
		into := a.packages
		if !strings.HasPrefix(name, "internal/") && !strings.HasPrefix(name, "cmd/") {
			into = a.libraries
		}
		if _, twice := into[name]; twice {
			t.Errorf("ARCHITECTURE.md has two rows for %s", name)
		}
		into[name] = []string{}
		for _, other := range others {
			if other != "–" {
				into[name] = append(into[name], other)
			}
		}
	}
	return a
}

// source is one Go file and what it imports.
type source struct {
	path    string
	test    bool
	pkg     string // path in the module
	imports []string
}

func readSources(t *testing.T) []source {
	t.Helper()
	var all []source
	for _, root := range []string{"../cmd", "../internal"} {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			path = strings.TrimPrefix(path, "../")
			s := source{path: path, test: strings.HasSuffix(path, "_test.go"), pkg: filepath.Dir(path)}
			for _, spec := range file.Imports {
				name, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					return err
				}
				s.imports = append(s.imports, name)
			}
			all = append(all, s)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// short is a package's name in the tables' lists.
func short(pkg string) string { return strings.TrimPrefix(pkg, "internal/") }

// objection says why a file may not import a package, empty if it may.
func (a architecture) objection(s source, imported string) string {
	if ours, ok := strings.CutPrefix(imported, module+"/"); ok {
		always := s.test && (ours == s.pkg || ours == "internal/netns" || ours == "internal/probe")
		if always || slices.Contains(a.packages[s.pkg], short(ours)) {
			return ""
		}
		return "the table of packages does not allow it"
	}
	first, _, _ := strings.Cut(imported, "/")
	if !strings.Contains(first, ".") {
		if imported == "C" {
			return "the binary is built without cgo"
		}
		return ""
	}
	for library, users := range a.libraries {
		if imported != library && !strings.HasPrefix(imported, library+"/") {
			continue
		}
		if s.test || slices.Contains(users, short(s.pkg)) {
			return ""
		}
		return "the table of libraries does not allow it here"
	}
	return "the table of libraries does not name it"
}

func TestImports(t *testing.T) {
	a := readArchitecture(t)
	sources := readSources(t)
	if len(a.packages) == 0 || len(a.libraries) == 0 || len(sources) == 0 {
		t.Fatalf("read %d packages, %d libraries and %d sources", len(a.packages), len(a.libraries), len(sources))
	}
	exists := map[string]bool{}
	for _, s := range sources {
		if _, known := a.packages[s.pkg]; !known && !exists[s.pkg] && s.pkg != "internal" {
			t.Errorf("ARCHITECTURE.md does not name the package %s", s.pkg)
		}
		exists[s.pkg] = true
		for _, imported := range s.imports {
			if why := a.objection(s, imported); why != "" {
				t.Errorf("%s imports %s: %s", s.path, imported, why)
			}
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(a.packages)) {
		if !exists[pkg] {
			t.Errorf("ARCHITECTURE.md names %s, which has no source", pkg)
		}
		for _, other := range a.packages[pkg] {
			if _, known := a.packages["internal/"+other]; !known {
				t.Errorf("ARCHITECTURE.md lets %s import %s, which it does not name", pkg, other)
			}
		}
	}
	for library, users := range a.libraries {
		for _, user := range users {
			if _, known := a.packages["internal/"+user]; !known && user != tests {
				t.Errorf("ARCHITECTURE.md lets %s use %s, but does not name it", user, library)
			}
		}
	}
}

// The rules have to be able to fail.
func TestObjection(t *testing.T) {
	a := readArchitecture(t)
	for _, test := range []struct {
		from     source
		imported string
		allowed  bool
	}{
		{source{pkg: "internal/plan"}, "frond/internal/fabric", true},
		{source{pkg: "internal/plan"}, "net/netip", true},
		{source{pkg: "internal/plan"}, "frond/internal/kernel", false},
		{source{pkg: "internal/plan"}, "github.com/vishvananda/netlink", false},
		{source{pkg: "internal/kernel"}, "github.com/vishvananda/netlink/nl", true},
		{source{pkg: "internal/node"}, "github.com/google/nftables", false},
		{source{pkg: "internal/node"}, "frond/internal/cli", false},
		{source{pkg: "internal/api"}, "go.yaml.in/yaml/v3", false},
		{source{pkg: "internal/api"}, "go.uber.org/goleak", false},
		{source{pkg: "internal/api", test: true}, "go.uber.org/goleak", true},
		{source{pkg: "internal/api"}, "example.org/unknown", false},
		{source{pkg: "internal/ra", test: true}, "frond/internal/netns", true},
		{source{pkg: "internal/ra"}, "frond/internal/netns", false},
		{source{pkg: "internal/ra", test: true}, "frond/internal/bfd", false},
		{source{pkg: "internal/unknown"}, "frond/internal/status", false},
		{source{pkg: "internal/api"}, "C", false},
	} {
		if why := a.objection(test.from, test.imported); (why == "") != test.allowed {
			t.Errorf("%+v importing %s: %q", test.from, test.imported, why)
		}
	}
}

// namedFile matches a file of this repository in a document's text.
var namedFile = regexp.MustCompile("`((?:internal|cmd|docs|scripts|packaging)/[A-Za-z0-9_./-]+)`|\\]\\(([A-Za-z0-9_./-]+)\\)")

func TestFilesThatDocumentsName(t *testing.T) {
	documents, err := filepath.Glob("../*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	names := 0
	for _, document := range append(documents, more...) {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range namedFile.FindAllStringSubmatch(string(text), -1) {
			names++
			path := filepath.Join("..", match[1])
			if match[2] != "" {
				path = filepath.Join(filepath.Dir(document), match[2])
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s names %s%s, which is not there", document, match[1], match[2])
			}
		}
	}
	if names == 0 {
		t.Error("the documents name no file at all")
	}
}
