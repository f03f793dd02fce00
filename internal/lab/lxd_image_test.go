package lab

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"testing"
)

// TestWriteImage reads what LXD would.
func TestWriteImage(t *testing.T) {
	t.Parallel()
	var written bytes.Buffer
	must(t, WriteImage(&written))
	zipped, err := gzip.NewReader(&written)
	must(t, err)
	entries := map[string]tar.Header{}
	for r := tar.NewReader(zipped); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		entries[h.Name] = *h
	}
	for name, want := range map[string]byte{
		"metadata.yaml": tar.TypeReg, "rootfs/bin/busybox": tar.TypeReg, "rootfs/sbin/init": tar.TypeSymlink,
		"rootfs/bin/udhcpc": tar.TypeSymlink, "rootfs/etc/dhcp": tar.TypeReg, "rootfs/proc": tar.TypeDir,
	} {
		if e, ok := entries[name]; !ok || e.Typeflag != want {
			t.Errorf("%s is %+v", name, e)
		}
	}
	if busybox := entries["rootfs/bin/busybox"]; busybox.Mode&0o111 == 0 || busybox.Size < 1<<20 {
		t.Errorf("busybox is %+v", busybox)
	}
	if err := WriteImage(refusing{}); err == nil {
		t.Error("an image that cannot be written is no error")
	}
}

// refusing takes nothing.
type refusing struct{}

func (refusing) Write([]byte) (int, error) { return 0, errors.New("no space") }

// TestLaunchSaysWhatIsWrong asks a lab without LXD.
func TestLaunchSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	l := &Lab{Name: unused(t, "l"), Topology: SpineLeaf(1, 1)}
	var input InputError
	if _, err := l.Launch(t.Context(), "c1", ""); !errors.As(err, &input) {
		t.Errorf("Launch: %v; want an InputError", err)
	}
	if err := l.StartLXD(t.Context(), "leaf1"); err == nil {
		t.Error("StartLXD starts one")
	}
}
