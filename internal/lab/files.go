package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"frond/internal/netns"
	"frond/internal/pki"
)

// Root is where labs keep their files, each in a directory of its name:
// fabric.yaml, lab.json (the Topology), pki/, and for each node NODE/ with
// frond.sock, bfd.sock, state/, log and pid.
const Root = "/run/frond-lab"

// labName has no dash, so that the namespaces of a lab, NAME-NODE, are never
// taken for those of another.
var labName = regexp.MustCompile(`^[a-z][a-z0-9]{0,19}$`)

// CheckName says what is wrong with the name of a lab.
func CheckName(name string) error {
	if !labName.MatchString(name) {
		return inputf("lab name %q: want a letter and then at most 19 letters and digits, all in lower case", name)
	}
	return nil
}

// A socket's path may have 107 bytes (unix(7)): the longest here is
// Root/20 characters/NODE/frond.sock.
const longestNode = 63

// Dir is the lab's directory.
func (l *Lab) Dir() string { return filepath.Join(Root, l.Name) }

// Document is the fabric.yaml that the lab's agents run by.
func (l *Lab) Document() string { return filepath.Join(l.Dir(), "fabric.yaml") }

// Socket is where a node's agent answers.
func (l *Lab) Socket(node string) string { return l.file(node, "frond.sock") }

// PKI is the directory of the lab's CA and its nodes' certificates.
func (l *Lab) PKI() string { return filepath.Join(l.Dir(), "pki") }

// Log is what a node's agent wrote.
func (l *Lab) Log(node string) string { return l.file(node, "log") }

func (l *Lab) file(node, name string) string { return filepath.Join(l.Dir(), node, name) }

// exists tells whether anything of a lab is there, whole or left by a crash.
func exists(name string) (bool, error) {
	if _, err := os.Lstat(filepath.Join(Root, name)); err == nil {
		return true, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("look for lab %s: %w", name, err)
	}
	namespaces, err := namespacesOf(name)
	return len(namespaces) > 0, err
}

// namespacesOf are the names of all namespaces of a lab.
func namespacesOf(lab string) ([]string, error) {
	all, err := netns.List()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, n := range all {
		if strings.HasPrefix(n, lab+"-") || strings.HasPrefix(n, lab+".") {
			names = append(names, n)
		}
	}
	return names, nil
}

// writeFiles claims the lab's name and makes everything known to later
// commands, before anything else is made.
func (l *Lab) writeFiles(document Source) error {
	if err := os.MkdirAll(Root, 0o755); err != nil {
		return fmt.Errorf("create the directory of labs: %w", err)
	}
	if err := os.Mkdir(l.Dir(), 0o755); err != nil {
		return fmt.Errorf("create lab %s: %w", l.Name, err)
	}
	if err := l.save(); err != nil {
		return err
	}
	for _, n := range l.Topology.Nodes {
		if err := os.MkdirAll(l.file(n.Name, "state"), 0o755); err != nil {
			return fmt.Errorf("create the files of %s: %w", n.Name, err)
		}
	}
	if err := document.copyKeys(l.Dir()); err != nil {
		return err
	}
	if err := os.WriteFile(l.Document(), document.Content, 0o644); err != nil {
		return fmt.Errorf("write the lab's document: %w", err)
	}
	return l.issueAll()
}

// issueAll makes the lab's CA and all nodes' certificates.
func (l *Lab) issueAll() error {
	f, err := l.Fabric()
	if err != nil {
		return err
	}
	if _, err := pki.Init(l.PKI(), f.Name, time.Now()); err != nil {
		return err
	}
	for _, n := range f.Nodes {
		node := pki.Node{Name: n.Name, Addresses: []netip.Addr{n.Loopback, n.Loopback6}}
		if _, err := pki.Issue(l.PKI(), node, time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// Source is a document and where its relative paths begin.
type Source struct {
	Content []byte
	Dir     string
}

// copyKeys copies the password files that the document names relative to itself.
func (s Source) copyKeys(dir string) error {
	var d struct {
		Underlay struct {
			PasswordFile         string `yaml:"password_file"`
			PreviousPasswordFile string `yaml:"previous_password_file"`
		}
	}
	if err := yaml.Unmarshal(s.Content, &d); err != nil {
		return fmt.Errorf("read the document: %w", err)
	}
	for _, name := range []string{d.Underlay.PasswordFile, d.Underlay.PreviousPasswordFile} {
		if name == "" || filepath.IsAbs(name) {
			continue
		}
		if err := s.copyKey(name, dir); err != nil {
			return err
		}
	}
	return nil
}

func (s Source) copyKey(name, dir string) error {
	if !filepath.IsLocal(name) {
		return fmt.Errorf("password file %s: a lab needs it beside the document, or with its full path", name)
	}
	key, err := os.ReadFile(filepath.Join(s.Dir, name))
	if err != nil {
		return fmt.Errorf("copy a password file: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
		return fmt.Errorf("copy a password file: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), key, 0o600); err != nil {
		return fmt.Errorf("copy a password file: %w", err)
	}
	return nil
}

// save writes lab.json, whole or not at all.
func (l *Lab) save() error {
	text, err := json.MarshalIndent(l.Topology, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the lab's topology: %w", err)
	}
	file := filepath.Join(l.Dir(), "lab.json")
	if err := os.WriteFile(file+".new", append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the lab's topology: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("write the lab's topology: %w", err)
	}
	return nil
}

func (l *Lab) load() error {
	text, err := os.ReadFile(filepath.Join(l.Dir(), "lab.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &l.Topology); err != nil {
		return fmt.Errorf("read lab.json: %w", err)
	}
	return nil
}

// locked runs change while no other command changes the lab, on the topology
// as it is then.
func (l *Lab) locked(change func() error) error {
	dir, err := os.Open(l.Dir())
	if err != nil {
		return fmt.Errorf("lock lab %s: %w", l.Name, err)
	}
	defer func() { _ = dir.Close() }()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock lab %s: %w", l.Name, err)
	}
	if err := l.load(); err != nil {
		return fmt.Errorf("lab %s: %w", l.Name, err)
	}
	return change()
}
