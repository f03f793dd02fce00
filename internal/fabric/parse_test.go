package fabric

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// documents are the samples below testdata/dir.
func documents(t testing.TB, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no documents in %s: %v", dir, err)
	}
	return paths
}

// golden compares with the file, which -update writes.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("differs from %s (-want +got):\n%s", path, diff)
	}
}

func TestGoodDocuments(t *testing.T) {
	for _, path := range documents(t, "good") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			f, err := Load(path)
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.MarshalIndent(f, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, strings.TrimSuffix(path, ".yaml")+".json", string(text)+"\n")
		})
	}
}

func TestBadDocuments(t *testing.T) {
	for _, dir := range []string{"bad/syntax", "bad/structure", "bad/meaning"} {
		for _, path := range documents(t, dir) {
			t.Run(strings.TrimPrefix(path, "testdata/"), func(t *testing.T) {
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				f, err := Parse(filepath.Base(path), data, filepath.Dir(path))
				if f != nil {
					t.Error("a bad document gave a fabric")
				}
				checkError(t, data, err)
				golden(t, strings.TrimSuffix(path, ".yaml")+".error", err.Error()+"\n")
			})
		}
	}
}

// checkError wants an error that an operator can act on: an *Error with a
// place that exists in the document, in one line of a screen's size.
func checkError(t *testing.T, data []byte, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no *Error but %T", err, err)
	}
	lines := strings.Split(string(data), "\n")
	if e.Line < 1 || e.Line > len(lines) || e.Column < 1 || e.Column > len(lines[e.Line-1])+1 {
		t.Errorf("%v: line %d, column %d is outside of the document", err, e.Line, e.Column)
	}
	if e.Problem == "" || e.Hint == "" {
		t.Errorf("%v: problem and hint must both be said", err)
	}
	if strings.ContainsAny(err.Error(), "\n\r\x00") || len(err.Error()) > 1000 {
		t.Errorf("%q is not one short line", err)
	}
}

func TestLoadOfWhatCannotBeRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fabric.yaml")
	_, err := Load(path)
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want one that is os.ErrNotExist", err)
	}
	want := path + ": cannot be read: no such file or directory; name a file that exists and that this user may read"
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if _, err := Load(filepath.Dir(path)); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("loading a directory: got %v", err)
	}
}

func TestGarbageIsRefusedWhole(t *testing.T) {
	garbage := map[string]string{
		"letters":  strings.Repeat("x", 10<<20),
		"brackets": strings.Repeat("[", 10<<20),
		"lines":    strings.Repeat("a: b\n", 2<<20),
	}
	for name, text := range garbage {
		path := filepath.Join(t.TempDir(), "fabric.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path)
		want := path + ":1:1: the document is longer than 4 MiB; is this the right file?"
		if err == nil || err.Error() != want {
			t.Errorf("%s: got %v\nwant %s", name, err, want)
		}
	}
}

// What just fits into the size that is read must end too, and soon.
func TestGarbageThatFits(t *testing.T) {
	fill := func(unit string) string { return strings.Repeat(unit, maxSize/len(unit)-1) }
	for name, text := range map[string]string{
		"brackets":     fill("["),
		"braces":       fill("{a: "),
		"dashes":       fill("- "),
		"keys":         fill("? "),
		"quotes":       fill(`"`),
		"late mistake": fill("a:\n- bbbbbbbbbbbbbbb\n") + "[",
		"open comment": fill("a:\n # b\n"),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("fabric.yaml", []byte(text), t.TempDir())
			checkError(t, []byte(text), err)
		})
	}
}

// The largest fabric that fits, and the same one with every name misspelt.
func TestLargeDocument(t *testing.T) {
	document := func(pattern string) []byte {
		var b strings.Builder
		b.WriteString("fabric: large\nunderlay: {loopbacks: [10.0.0.0/8]}\nnodes:\n")
		for i := range maxEntries {
			fmt.Fprintf(&b, "  node%d: {loopback: 10.0.%d.%d}\n", i, i/256, i%256)
		}
		b.WriteString("segments:\n")
		for i := range maxEntries {
			fmt.Fprintf(&b, "  s%d: {vni: %d, nodes: [%s], prefix: 172.%d.%d.0/28}\n", i, i+1, strings.Replace(pattern, "%", fmt.Sprint(i), 1), 16+i/256, i%256)
		}
		return []byte(b.String())
	}
	f, err := Parse("fabric.yaml", document("node%"), "")
	if err != nil {
		t.Fatal(err)
	}
	if last := f.Segments[maxEntries-1]; len(last.Nodes) != 1 || last.Nodes[0] != "node4095" {
		t.Errorf("the last segment has the nodes %v", last.Nodes)
	}
	wrong := document("nodes-%")
	_, err = Parse("fabric.yaml", wrong, "")
	checkError(t, wrong, err)
}

func TestLimits(t *testing.T) {
	const head = "fabric: apollo\nunderlay: {loopbacks: [10.0.0.0/8]}\n"
	ports := strings.Repeat("eth0, ", maxItems+1)
	var nodes strings.Builder
	for i := range maxEntries + 1 {
		fmt.Fprintf(&nodes, "  n%d: {}\n", i)
	}
	for document, want := range map[string]string{
		head + "nodes:\n" + nodes.String():                                         "fabric.yaml:4:3: nodes: has 4097 entries; at most 4096 fit into one document",
		head + "nodes: {a: {loopback: 10.0.0.1, reserved_ports: [" + ports + "]}}": "fabric.yaml:3:49: nodes.a.reserved_ports: has 257 items; at most 256 fit",
	} {
		_, err := Parse("fabric.yaml", []byte(document), "")
		if err == nil || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
}

// An editor of another system ends lines and begins files in its own way.
func TestLineEnds(t *testing.T) {
	unix, err := os.ReadFile("testdata/good/sample.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want, err := Parse("fabric.yaml", unix, "testdata/good")
	if err != nil {
		t.Fatal(err)
	}
	other := "\ufeff" + strings.ReplaceAll(string(unix), "\n", "\r\n")
	got, err := Parse("fabric.yaml", []byte(other), "testdata/good")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("(-unix +other):\n%s", diff)
	}
	_, err = Parse("fabric.yaml", []byte("\x00"), "")
	checkError(t, []byte("\x00"), err)
}

func TestFind(t *testing.T) {
	f := &Fabric{Name: "apollo", Nodes: []Node{{Name: "spine1"}, {Name: "leaf1"}, {Name: "leaf2"}}}
	if n, err := f.Find("leaf2"); err != nil || n.Name != "leaf2" {
		t.Errorf("got %v, %v", n, err)
	}
	for name, want := range map[string]string{
		"laef1":             "fabric apollo has no node laef1; did you mean leaf1?",
		"LEAF2":             "fabric apollo has no node LEAF2; did you mean leaf2?",
		"leaf1.example.com": "fabric apollo has no node leaf1.example.com; did you mean leaf1?",
		"localhost":         "fabric apollo has no node localhost; there are spine1, leaf1 and leaf2",
		"":                  `fabric apollo has no node ""; there are spine1, leaf1 and leaf2`,
	} {
		if _, err := f.Find(name); err == nil || err.Error() != want {
			t.Errorf("%s: got %v\nwant %s", name, err, want)
		}
	}
}

func TestPasswordIsNeverShown(t *testing.T) {
	f, err := Load("testdata/good/sample.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if string(f.Underlay.Password) != "a-good-key" {
		t.Fatalf("the key file was read as %q", string(f.Underlay.Password))
	}
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "a-good-key") {
		t.Error("JSON shows the password")
	}
}

func FuzzParse(f *testing.F) {
	for _, dir := range []string{"good", "bad/syntax", "bad/structure", "bad/meaning"} {
		for _, path := range documents(f, dir) {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		fabric, err := Parse("fabric.yaml", data, dir)
		if err != nil {
			checkError(t, data, err)
			return
		}
		if len(fabric.Nodes) == 0 {
			t.Error("a valid document without nodes")
		}
		for _, n := range fabric.Nodes {
			if !n.Loopback.Is4() || !n.Loopback6.Is6() || n.ASN == 0 || len(n.Ports) == 0 {
				t.Errorf("node is not whole: %+v", n)
			}
		}
	})
}
