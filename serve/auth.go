package serve

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
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

	mu      sync.Mutex
	sums    [][sha256.Size]byte
	stamp   time.Time // the file's, when it was read
	size    int64
	checked time.Time
}

// readKeys reads one key a line; blank lines and lines that begin with '#' are
// none.
func readKeys(path string) (*keys, error) {
	k := &keys{path: path}
	if err := k.read(); err != nil {
		return nil, err
	}
	return k, nil
}

func (k *keys) read() error {
	info, err := os.Stat(k.path)
	if err != nil {
		return fault.Usage("API keys: %w", err)
	}
	b, err := os.ReadFile(k.path)
	if err != nil {
		return fault.Usage("API keys: %w", err)
	}
	var sums [][sha256.Size]byte
	for line := range bytes.Lines(b) {
		if key := bytes.TrimSpace(line); len(key) > 0 && key[0] != '#' {
			sums = append(sums, sha256.Sum256(key))
		}
	}
	if len(sums) == 0 {
		return fault.Usage("API keys: %s holds no key: write one a line", k.path)
	}
	k.sums, k.stamp, k.size = sums, info.ModTime(), info.Size()
	return nil
}

// allowed reports whether key is one of the file's. Every key is compared, in
// constant time. A file that cannot be read any more leaves the keys as they
// were.
func (k *keys) allowed(key string) bool {
	k.mu.Lock()
	if now := time.Now(); now.Sub(k.checked) > keyCheck {
		k.checked = now
		if info, err := os.Stat(k.path); err == nil && (!info.ModTime().Equal(k.stamp) || info.Size() != k.size) {
			_ = k.read()
		}
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
