package fabric

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

func compileSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("urn:frond:fabric.yaml", document); err != nil {
		t.Fatal(err)
	}
	compiled, err := compiler.Compile("urn:frond:fabric.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// asJSON is the YAML document as a JSON one, as an editor's checker sees it.
func asJSON(t *testing.T, path string) any {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var document any
	if err := yaml.Unmarshal(data, &document); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	document, err = jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return document
}

// The schema takes what is built right, even where it means nonsense, and
// refuses what is built wrong.
func TestSchemaJudgesAsTheDecoderDoes(t *testing.T) {
	compiled := compileSchema(t)
	for dir, valid := range map[string]bool{"good": true, "bad/meaning": true, "bad/structure": false} {
		for _, path := range documents(t, dir) {
			err := compiled.Validate(asJSON(t, path))
			if valid && err != nil {
				t.Errorf("%s: %v", filepath.Join(dir, filepath.Base(path)), err)
			}
			if !valid && err == nil {
				t.Errorf("%s: the schema takes it", filepath.Join(dir, filepath.Base(path)))
			}
		}
	}
}

func TestSchemaKnowsTheKeysOfTheDecoder(t *testing.T) {
	var s struct {
		Defs map[string]struct {
			Properties           map[string]any `json:"properties"`
			AdditionalProperties *bool          `json:"additionalProperties"`
		} `json:"$defs"`
	}
	if err := json.Unmarshal(Schema(), &s); err != nil {
		t.Fatal(err)
	}
	inSchema := map[string][]string{}
	for name, def := range s.Defs {
		if def.Properties == nil {
			continue
		}
		inSchema[name] = slices.Sorted(maps.Keys(def.Properties))
		if def.AdditionalProperties == nil || *def.AdditionalProperties {
			t.Errorf("$defs.%s lets unknown keys pass", name)
		}
	}
	inDecoder := map[string][]string{}
	for name, keys := range keysOf {
		inDecoder[name] = slices.Sorted(slices.Values(keys))
	}
	if diff := cmp.Diff(inDecoder, inSchema); diff != "" {
		t.Errorf("keys differ (-decoder +schema):\n%s", diff)
	}
}

// A key that stands in keysOf but that nothing decodes would be taken and
// mean nothing; everything.yaml sets them all, but for those that exclude
// others, which external.yaml and lxd.yaml set. A null in the place of each must be an error.
func TestEveryKeyIsDecoded(t *testing.T) {
	for kind, keys := range keysOf {
		for _, key := range keys {
			text, found := nullified(t, "everything.yaml", key, keys)
			for _, other := range []string{"external.yaml", "lxd.yaml"} {
				if !found {
					text, found = nullified(t, other, key, keys)
				}
			}
			if !found {
				t.Errorf("no document has %s of a %s", key, kind)
			} else if _, err := Parse("everything.yaml", text, "testdata/good"); err == nil {
				t.Errorf("%s of a %s may be anything", key, kind)
			}
		}
	}
}

// nullified is the document with a null in the place of one value of that key.
func nullified(t *testing.T, document, key string, keys []string) ([]byte, bool) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata/good", document))
	if err != nil {
		t.Fatal(err)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		t.Fatal(err)
	}
	if !nullify(&root, key, slices.Sorted(slices.Values(keys))) {
		return nil, false
	}
	text, err := yaml.Marshal(&root)
	if err != nil {
		t.Fatal(err)
	}
	return text, true
}

// nullify makes the first value of that key null that stands in a mapping of
// no other keys than those, and tells whether there was one.
func nullify(n *yaml.Node, key string, keys []string) bool {
	if n.Kind == yaml.MappingNode {
		known := true
		for i := 0; i < len(n.Content); i += 2 {
			known = known && slices.Contains(keys, n.Content[i].Value)
		}
		for i := 0; known && i < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				n.Content[i+1] = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
				return true
			}
		}
	}
	return slices.ContainsFunc(n.Content, func(c *yaml.Node) bool { return nullify(c, key, keys) })
}
