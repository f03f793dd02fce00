package store

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	sayAgain   = time.Minute // the same line of etcd's is logged once in that time
	mostToSay  = 256         // different lines that are remembered
	longestSay = 500         // bytes of a report
)

// zapCore turns etcd's log into few lines of ours: what ends it as errors, its
// errors as warnings, its many warnings for who debugs, each once a minute,
// and nothing below.
type zapCore struct {
	log     *slog.Logger
	died    func(text string) // etcd is about to end the process
	removed *atomic.Bool      // etcd said that this is no member any more
	said    *lines
	fields  []zapcore.Field
}

// lines remembers what was said when.
type lines struct {
	mu sync.Mutex
	at map[string]time.Time
}

func newZapCore(log *slog.Logger, died func(string)) *zapCore {
	return &zapCore{log: log, died: died, removed: new(atomic.Bool), said: &lines{at: map[string]time.Time{}}}
}

func (c *zapCore) logger() *zap.Logger { return zap.New(c) }

func (c *zapCore) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

func (c *zapCore) With(fields []zapcore.Field) zapcore.Core {
	more := *c
	more.fields = append(append([]zapcore.Field(nil), c.fields...), fields...)
	return &more
}

func (c *zapCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

func (c *zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	encoder := zapcore.NewMapObjectEncoder()
	for _, f := range append(append([]zapcore.Field(nil), c.fields...), fields...) {
		f.AddTo(encoder)
	}
	reason, _ := encoder.Fields["error"].(string)
	text := strings.TrimSuffix(e.Message+": "+reason, ": ")
	if strings.Contains(text, "permanently removed") {
		c.removed.Store(true)
	}
	if e.Level >= zapcore.DPanicLevel {
		c.died(text[:min(len(text), longestSay)])
	}
	if e.Level < zapcore.DPanicLevel && !c.said.new(e.Message, e.Time) {
		return nil
	}
	level := slog.LevelDebug
	switch {
	case e.Level >= zapcore.DPanicLevel:
		level = slog.LevelError
	case e.Level == zapcore.ErrorLevel:
		level = slog.LevelWarn
	}
	c.log.Log(context.Background(), level, "etcd: "+text)
	return nil
}

func (*zapCore) Sync() error { return nil }

// new tells whether a line was not said of late.
func (l *lines) new(text string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.at[text]) < sayAgain {
		return false
	}
	if len(l.at) >= mostToSay {
		clear(l.at)
	}
	l.at[text] = now
	return true
}

// troubleOf tells the kind of what etcd says in words: its errors have no
// types by the time that they arrive here.
func troubleOf(text string) Trouble {
	for _, of := range []struct {
		trouble Trouble
		words   []string
	}{
		{DiskFull, []string{"no space left on device", "disk quota exceeded"}},
		{Removed, []string{"permanently removed"}},
		{Corrupt, []string{"crc mismatch", "wal:", "walpb", "snap:", "snapshot", "WAL", "invalid database", "checksum error",
			"version mismatch", "unexpected EOF", "file size too small", "backend", "corrupt", "tocommit(",
			"proto:"}}, // a record of the log that is none
	} {
		for _, w := range of.words {
			if strings.Contains(text, w) {
				return of.trouble
			}
		}
	}
	return OtherTrouble
}
