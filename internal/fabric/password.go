package fabric

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"frond/internal/secret"
)

// maxKey is TCP_MD5SIG_MAXKEYLEN, the longest key that tcp(7) takes, in bytes.
const maxKey = 80

// decodePassword reads the key from the file that the field names, relative
// to the document's directory.
func decodePassword(v value, dir string) (secret.Text, bool) {
	name, ok := v.text("name the file that holds the key, as in /etc/frond/bgp.key")
	if !ok {
		return "", false
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	key, err := readKey(name)
	if err != nil {
		v.wrong("key file "+show(name)+": "+err.Error(),
			fmt.Sprintf("it must be a file of one line of 1 to %d bytes that this user may read", maxKey))
		return "", false
	}
	return key, true
}

// readKey takes the one line of a key file. Only a regular file is opened:
// a pipe or a device might never end.
func readKey(name string) (secret.Text, error) {
	if info, err := os.Stat(name); err != nil {
		return "", cause(err)
	} else if !info.Mode().IsRegular() {
		return "", fmt.Errorf("is no regular file")
	}
	file, err := os.Open(name)
	if err != nil {
		return "", cause(err)
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxKey+3))
	if err != nil {
		return "", cause(err)
	}
	key := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	switch {
	case key == "":
		return "", fmt.Errorf("is empty")
	case len(key) > maxKey:
		return "", fmt.Errorf("is longer than %d bytes", maxKey)
	case strings.ContainsFunc(key, func(r rune) bool { return r < ' ' }):
		return "", fmt.Errorf("has more than one line, or control characters")
	}
	return secret.Text(key), nil
}

// checkPrevious says what is wrong with a previous key beside the key of now.
func checkPrevious(previous value, u Underlay, underlay mapping) {
	if _, ok := underlay.values["password_file"]; !ok {
		previous.wrong("there is no password_file", "name the file with the key of now, as in password_file: bgp.key")
		return
	}
	if u.Password != "" && u.Password == u.PreviousPassword {
		previous.wrong("holds the same key as password_file", "name a file with the key before it, or leave it out once all nodes have the new one")
	}
}
