package serve

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"promptgen/generate"
)

// What people really use: OpenAI's client library, and a browser. They need
// Node.js, "npm ci" in e2e/ and Chromium; with PROMPTGEN_E2E=1 their absence is
// a failure.
func TestClients(t *testing.T) {
	absent := t.Skipf
	if os.Getenv("PROMPTGEN_E2E") == "1" {
		absent = t.Fatalf
	}
	node, err := exec.LookPath("node")
	if err != nil {
		absent("no Node.js: %v", err)
	}
	if _, err := os.Stat("e2e/node_modules"); err != nil {
		absent("run npm ci in serve/e2e: %v", err)
	}
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte("e2e-key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	none := int32(-1) // the tiny model would end its texts at once
	_, url := start(t, Options{APIKeyFile: keys, MaxLength: generate.MaxLength}, generate.EngineOptions{EOS: &none})
	env := append(os.Environ(), "PROMPTGEN_URL="+url, "PROMPTGEN_KEY=e2e-key")
	run := func(t *testing.T, file string) {
		cmd := exec.CommandContext(t.Context(), node, "--test", file)
		cmd.Dir, cmd.Env = "e2e", env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	t.Run("openai", func(t *testing.T) { run(t, "openai.test.mjs") })
	t.Run("page", func(t *testing.T) {
		for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
			if browser, err := exec.LookPath(name); err == nil {
				env = append(env, "PROMPTGEN_CHROMIUM="+browser)
				run(t, "page.test.mjs")
				return
			}
		}
		absent("no Chromium")
	})
}
