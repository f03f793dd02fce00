package versus

import (
	"strings"
	"testing"
	"time"
)

func TestKeepalivedConfig(t *testing.T) {
	k := keepalived{advert: 100 * time.Millisecond}
	text := k.config("br-blue", 99, 16)
	for _, line := range []string{"  vrrp_version 3\n", "  interface br-blue\n", "  priority 99\n", "  advert_int 0.1\n", "    172.16.0.1/16 dev br-blue\n"} {
		if !strings.Contains(text, line) {
			t.Errorf("lacks %q:\n%s", line, text)
		}
	}
}
