package secret_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"frond/internal/secret"
)

func TestNothingShowsIt(t *testing.T) {
	type keys struct{ Current, Previous secret.Text }
	k := keys{Current: "hunter2"}
	var log strings.Builder
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("changed", "key", k.Current, "keys", k)
	}
	inJSON, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	inYAML, err := yaml.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"%v": fmt.Sprintf("%v", k), "%+v": fmt.Sprintf("%+v", k), "%#v": fmt.Sprintf("%#v", k), "%s": fmt.Sprintf("%s", k),
		"%q": fmt.Sprintf("%q", k), "JSON": string(inJSON), "YAML": string(inYAML), "log": log.String(),
	} {
		if strings.Contains(text, "hunter2") || !strings.Contains(text, "(secret)") {
			t.Errorf("%s: %s", name, text)
		}
	}
	if text := fmt.Sprint(k.Previous); text != "" {
		t.Errorf("of none is shown: %s", text)
	}
}
