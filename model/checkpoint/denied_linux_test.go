package checkpoint

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"promptgen/internal/fault"
	"promptgen/internal/testkit"
)

// What may not be read is a fault of usage, whichever part of a folder it is, and
// is not taken for missing.
func TestPartsThatMayNotBeRead(t *testing.T) {
	testkit.AsNobody(t, func(root string) {
		dir := filepath.Join(root, "model")
		m := smallModel(t, false)
		m.UserDict = []byte("高血压 5 n\n")
		if err := Save(context.Background(), dir, m); err != nil {
			t.Fatal(err)
		}
		refused := func(path, name, reason string) {
			t.Helper()
			if err := os.Chmod(path, 0); err != nil {
				t.Fatal(err)
			}
			defer os.Chmod(path, 0o755)
			_, err := Load(dir, LoadOptions{})
			wantCode(t, err, fault.CodeUsage, name, reason)
			info, err := Inspect(dir)
			if err == nil {
				err = info.Err()
			}
			wantCode(t, err, fault.CodeUsage, name, reason)
		}
		for _, name := range []string{configName, metaName, safetensorsName, userDictName} {
			path := filepath.Join(dir, name)
			refused(path, path, "may not be read")
		}
		refused(filepath.Join(dir, vocabName), filepath.Join(dir, vocabName), "permission denied")
		refused(dir, dir, "may not be read")
	})
}
