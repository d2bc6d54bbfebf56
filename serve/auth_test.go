package serve

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"promptgen/generate"
)

func TestKeysAndRate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# ours\nsecret-1\r\n\nsecret-2")
	s, url := start(t, Options{APIKeyFile: file, Rate: 0.001}, generate.EngineOptions{})
	for path, status := range map[string]int{"/health": 200, "/ready": 200, "/": 200, "/metrics": 401, "/v1/models": 401} {
		if r := ask(t, "GET", url+path, ""); r.status != status {
			t.Errorf("%s without a key: %d", path, r.status)
		}
	}
	// What there is, and which method it takes, is told to those with a key.
	for _, c := range []struct {
		method, path string
		status       int
	}{{"GET", "/generate", 405}, {"PUT", "/v1/models", 405}, {"GET", "/nothing", 404}, {"POST", "/v1/chat/completions", 404}} {
		for key, status := range map[string]int{"": 401, "Bearer secret-1": c.status} {
			if r := ask(t, c.method, url+c.path, "", "Authorization", key); r.status != status {
				t.Errorf("%s %s with the key %q: %d, want %d", c.method, c.path, key, r.status, status)
			}
		}
	}
	pre := ask(t, "OPTIONS", url+"/generate", "", "Origin", "http://x", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,x-own")
	if pre.status != 204 || pre.header.Get("Access-Control-Allow-Headers") != "authorization,x-own" {
		t.Errorf("preflight: %+v", pre)
	}
	body := `{"context":"高","maxlength":1}`
	for key, status := range map[string]int{"": 401, "Bearer secret-3": 401, "secret-1": 401, "Bearer secret-1": 200, "bearer secret-2": 200} {
		if r := ask(t, "POST", url+"/generate", body, "Authorization", key); r.status != status {
			t.Errorf("key %q: %d", key, r.status)
		}
	}
	if r := ask(t, "POST", url+"/generate", body, "Authorization", "Bearer secret-1"); r.status != 429 || r.header.Get("Retry-After") == "" {
		t.Errorf("above the rate: %d", r.status)
	}
	write("secret-1\nsecret-4\n")
	s.keys.mu.Lock()
	s.keys.checked = time.Time{}
	s.keys.mu.Unlock()
	for key, status := range map[string]int{"Bearer secret-4": 200, "Bearer secret-2": 401} {
		if r := ask(t, "GET", url+"/v1/models", "", "Authorization", key); r.status != status {
			t.Errorf("after the file changed, %q: %d", key, r.status)
		}
	}
	if r := ask(t, "POST", url+"/admin/reload", "", "Authorization", "Bearer secret-1"); r.status != 200 {
		t.Errorf("reload: %d %s", r.status, r.body)
	}
	_, open := start(t, Options{CORSOrigins: []string{"https://a.example"}}, generate.EngineOptions{})
	if r := ask(t, "POST", open+"/admin/reload", ""); r.status != 403 {
		t.Errorf("reload without keys: %d", r.status)
	}
	for origin, want := range map[string]string{"https://a.example": "https://a.example", "https://b.example": ""} {
		if r := ask(t, "GET", open+"/health", "", "Origin", origin); r.header.Get("Access-Control-Allow-Origin") != want || r.header.Get("Vary") != "Origin" {
			t.Errorf("origin %s: %v", origin, r.header)
		}
	}
	if _, err := New(Options{Open: openTiny(t, generate.EngineOptions{}), APIKeyFile: file + "x", TLSCert: "a"}); err == nil {
		t.Error("a key file that is not there, a certificate without key: no error")
	}
}

// A key file that is emptied allows no key, and one that cannot be read any more
// leaves the keys as they were; the log says so once, not at each request.
func TestKeysThatAreLost(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("secret-1\n")
	var log lockedBuffer
	k, err := readKeys(file, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name    string
		change  func()
		allowed bool
		logged  string // what is new in the log
	}{
		{"unchanged", func() {}, true, ""},
		{"emptied", func() { write("# none today\n") }, false, "every request is refused"},
		{"written again", func() { write("secret-1\nsecret-2\n") }, true, ""},
		{"taken away", func() { os.Remove(file) }, true, "cannot be read again"},
		{"back", func() { write("secret-1") }, true, ""},
		{"a folder", func() { os.Remove(file); os.Mkdir(file, 0o700) }, true, "cannot be read again"},
	} {
		step.change()
		before := len(log.String())
		for range 3 {
			k.checked = time.Time{}
			if got := k.allowed("secret-1"); got != step.allowed {
				t.Errorf("%s: allowed %v", step.name, got)
			}
		}
		said := log.String()[before:]
		if step.logged == "" && said != "" || step.logged != "" && (strings.Count(said, "\n") != 1 || !strings.Contains(said, step.logged) || !strings.Contains(said, "level=ERROR")) {
			t.Errorf("%s: %q in the log", step.name, said)
		}
	}
	os.Remove(file)
	write("\n# none\n")
	if _, err := New(Options{Open: openTiny(t, generate.EngineOptions{}), APIKeyFile: file}); err == nil || !strings.Contains(err.Error(), "holds no key") {
		t.Errorf("begun without a key: %v", err)
	}
}
