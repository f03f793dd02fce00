package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"frond/internal/pki"
)

func TestBackupAndRestore(t *testing.T) {
	c := newCluster(t, 1)
	c.startAll()
	client, ctx := c.client(c.machines[0].pki), t.Context()
	client.volatile = []string{"now/"}
	if _, err := client.Create(ctx, "now/held", []byte("by a"), nil); err != nil {
		t.Fatal(err)
	}
	const keys = 2500 // more than a page, and than a transaction takes
	backup := []byte(fmt.Sprintf(`{"frond":"store backup 1","prefix":"/x/","revision":1,"time":"2026-03-01T12:00:00Z","keys":%d}`+"\n", keys))
	for i := range keys {
		backup = fmt.Appendf(backup, `{"key":"k%04d","value":"dmFsdWU="}`+"\n", i)
	}
	sound := func(text []byte) []byte { return fmt.Appendf(bytes.Clone(text), "%s\n", checksum(text)) }
	if n, err := client.Restore(ctx, bytes.NewReader(sound(backup)), false); err != nil || n != keys {
		t.Fatalf("%d, %v", n, err)
	}
	session, err := client.NewSession(ctx, 60*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Create(ctx, "held", nil, session); err != nil {
		t.Fatal(err)
	}
	var written bytes.Buffer
	if n, err := client.Backup(ctx, &written, time.Now()); err != nil || n != keys {
		t.Fatalf("%d, %v", n, err)
	}
	if _, err := client.Create(ctx, "later", nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Restore(ctx, bytes.NewReader(written.Bytes()), false); err == nil || !strings.Contains(err.Error(), "holds 2501 keys already") {
		t.Errorf("restored over what is there: %v", err)
	}
	if _, err := client.Restore(ctx, bytes.NewReader(written.Bytes()), true); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(written.String(), "now/") {
		t.Error("who holds what at the moment is in the backup")
	}
	all, _, err := client.List(ctx, "")
	last := len(all) - 1
	if err != nil || len(all) != keys+2 || all[0].Key != "held" || string(all[1].Value) != "value" || all[last].Key != "now/held" || string(all[last].Value) != "by a" {
		t.Errorf("%d keys, %v", len(all), err)
	}
}

func checksum(text []byte) string {
	cmd := exec.Command("sha256sum")
	cmd.Stdin = bytes.NewReader(text)
	out, _ := cmd.Output()
	return strings.Fields(string(out))[0]
}

func TestBackupsThatAreRefused(t *testing.T) {
	head := `{"frond":"store backup 1","prefix":"/x/","revision":1,"time":"2026-03-01T12:00:00Z","keys":1}` + "\n"
	const key = `{"key":"a","value":"eA=="}` + "\n"
	for text, want := range map[string]string{
		"":                                      "this is none that",
		"hello\n":                               "this is none that",
		head:                                    "it ends after 0 of 1 keys",
		head + "x\n":                            "key 1: ",
		head + key:                              "it was damaged",
		head + key + strings.Repeat("0", 64):    "it was damaged",
		head + key + checksum([]byte(head+key)): "",
	} {
		_, err := readBackup(strings.NewReader(text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// A service opens its client when the files come, and closes it when nothing
// is desired any more.
func TestServiceWaitsForFiles(t *testing.T) {
	c := newCluster(t, 1)
	c.startAll()
	s := NewService("/nonexistent", t.TempDir(), io.Discard, c.log)
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { defer close(ended); _ = s.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	desired := Desired{Fabric: "test", Members: c.peers(), Endpoints: Endpoints(c.peers()), Files: pki.FilesIn(t.TempDir(), "a")}
	s.Set(desired)
	c.until("it misses files", func() bool { return strings.Contains(s.Report().Problem, "is missing") })
	desired.Files = pki.FilesIn(c.machines[0].pki, "a")
	s.Set(desired)
	c.until("it sees the leader", func() bool { r := s.Report(); return r.Health != nil && r.Health.Leader == "a" })
	desired.Member = "a"
	s.Set(desired)
	c.until("its member cannot be started", func() bool {
		r := s.Report().Member
		return r != nil && r.State == Failed && strings.Contains(r.Text, "/nonexistent")
	})
	s.Set(Desired{})
	c.until("nothing runs", func() bool {
		r := s.Report()
		client, _ := s.current()
		return r.Member == nil && client == nil
	})
}
