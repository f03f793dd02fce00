package fabric

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sectionOf is the heading in docs/fabric.md below which the keys of each
// mapping stand.
var sectionOf = map[string]string{
	"Document":              "document",
	"Underlay":              "underlay",
	"underlay.bfd":          "bfd",
	"underlay.timers":       "timers",
	"Node":                  "node",
	"nodes.NAME.uplink":     "uplink",
	"Segment":               "segment",
	"segments.NAME.gateway": "gateway",
	"segments.NAME.dhcp":    "dhcp",
	"segments.NAME.dhcp6":   "dhcp6",

	"segments.NAME.dhcp.routes[]":           "route",
	"segments.NAME.dhcp.reservations.NAME":  "reservation",
	"segments.NAME.dhcp6.reservations.NAME": "reservation6",

	"Store":     "store",
	"store.lxd": "lxd",
	"Guard":     "guard",
	"Guests":    "guests",
}

func reference(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/fabric.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestReferenceNamesEveryKey(t *testing.T) {
	heading := regexp.MustCompile("^##+ (.*)$")
	row := regexp.MustCompile("^\\| `([a-z0-9_]+)` \\|")
	got, section := map[string][]string{}, ""
	for line := range strings.Lines(reference(t)) {
		line = strings.TrimSuffix(line, "\n")
		if m := heading.FindStringSubmatch(line); m != nil {
			section = sectionOf[m[1]]
		} else if m := row.FindStringSubmatch(line); m != nil {
			got[section] = append(got[section], m[1])
		}
	}
	want := maps.Clone(keysOf)
	for _, keys := range []map[string][]string{got, want} {
		for kind := range keys {
			keys[kind] = slices.Sorted(slices.Values(keys[kind]))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys differ (-decoder +reference):\n%s", diff)
	}
}

func TestSampleOfTheReference(t *testing.T) {
	_, after, found := strings.Cut(reference(t), "```yaml\n")
	sample, _, closed := strings.Cut(after, "```")
	if !found || !closed {
		t.Fatal("the reference has no sample")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "bgp.key"), []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Parse("docs/fabric.md", []byte(sample), dir)
	if err != nil {
		t.Fatal(err)
	}
	if f.Name != "apollo" || len(f.Nodes) != 5 || len(f.Segments) != 1 || f.Underlay.Password != "secret" {
		t.Errorf("the sample is read as %+v", f)
	}
}
