package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// cgroupOf is the cgroup of a node that LXD runs on, in every hierarchy.
func cgroupOf(lab, node string) string { return "frond-lab." + lab + "." + node }

// removeCgroups removes those of a lab's nodes, in which nothing runs any more.
func removeCgroups(lab string) error {
	const root = "/sys/fs/cgroup"
	for _, pattern := range []string{root, root + "/*"} { // cgroup v2; v1, and v2 beside it
		groups, err := filepath.Glob(filepath.Join(pattern, cgroupOf(lab, "*")))
		if err != nil {
			return err
		}
		for _, group := range groups {
			if err := removeCgroup(group); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeCgroup removes one and all below it: their files cannot be removed, and
// go with them.
func removeCgroup(group string) error {
	var all []string
	err := filepath.WalkDir(group, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			all = append(all, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	slices.Reverse(all)
	for _, path := range all {
		if removeErr := os.Remove(path); removeErr != nil && !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
	}
	if err != nil {
		return fmt.Errorf("remove cgroup %s: %w", group, err)
	}
	return nil
}
