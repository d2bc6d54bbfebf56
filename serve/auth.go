package serve

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"promptgen/internal/fault"
)

// keyCheck is how often the key file is looked at again.
const keyCheck = time.Second

// keys are the API keys of a file, which is read again when it changes.
type keys struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	sums    [][sha256.Size]byte
	stamp   time.Time // the file's, when it was read
	size    int64
	checked time.Time
	failure string // why the file cannot be read any more, as it was logged
}

// readKeys reads one key a line; blank lines and lines that begin with '#' are
// none. A server does not begin without a key.
func readKeys(path string, log *slog.Logger) (*keys, error) {
	k := &keys{path: path, log: log}
	if err := k.read(); err != nil {
		return nil, fault.Usage("API keys: %w", err)
	}
	if len(k.sums) == 0 {
		return nil, fault.Usage("API keys: %s holds no key: write one a line", path)
	}
	return k, nil
}

// read reads the file if it is another than the one that was read last.
func (k *keys) read() error {
	info, err := os.Stat(k.path)
	if err != nil || info.ModTime().Equal(k.stamp) && info.Size() == k.size {
		return err
	}
	b, err := os.ReadFile(k.path)
	if err != nil {
		return err
	}
	var sums [][sha256.Size]byte
	for line := range bytes.Lines(b) {
		if key := bytes.TrimSpace(line); len(key) > 0 && key[0] != '#' {
			sums = append(sums, sha256.Sum256(key))
		}
	}
	k.sums, k.stamp, k.size = sums, info.ModTime(), info.Size()
	return nil
}

// refresh reads the file again where it has changed. One that cannot be read any
// more leaves the keys as they were; one without keys allows none. Both are
// logged once. mu is held.
func (k *keys) refresh() {
	had, failure := len(k.sums), ""
	if err := k.read(); err != nil {
		failure = err.Error()
	}
	switch {
	case failure != "" && failure != k.failure:
		k.log.Error("the API keys cannot be read again: those read before stay valid", "error", failure)
	case had > 0 && len(k.sums) == 0:
		k.log.Error("the file of API keys holds none any more: every request is refused", "file", k.path)
	}
	k.failure = failure
}

// allowed reports whether key is one of the file's. Every key is compared, in
// constant time.
func (k *keys) allowed(key string) bool {
	k.mu.Lock()
	if now := time.Now(); now.Sub(k.checked) > keyCheck {
		k.checked = now
		k.refresh()
	}
	sums := k.sums
	k.mu.Unlock()
	sum, found := sha256.Sum256([]byte(key)), 0
	for _, s := range sums {
		found |= subtle.ConstantTimeCompare(s[:], sum[:])
	}
	return found == 1
}

// bearer is the key that a request shows.
func bearer(r *http.Request) string {
	kind, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(kind, "Bearer") {
		return ""
	}
	return strings.TrimSpace(key)
}
