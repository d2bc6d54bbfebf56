package checkpoint

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"

	"promptgen/internal/atomicdir"
	"promptgen/internal/fault"
	"promptgen/model/checkpoint/gguf"
)

// modelNames are the files that this package writes into model folders.
var modelNames = []string{
	configName, generationName, safetensorsName, torchName, adapterConfigName, adapterName,
	vocabName, userDictName, tokenizerName, tokenizerConfName, specialTokensName, metaName,
}

// MayReplace refuses (2) to put a model folder where something else lies: it is
// replaced as a whole, and what a user keeps there would be gone. Nothing, an
// empty folder and a model folder that was written here may be replaced, but for
// the one that the program runs in.
func MayReplace(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := atomicdir.MayReplace(dir); err != nil {
		return err
	}
	if err == nil && !info.IsDir() {
		return fault.Usage("%s: is a file, and a model folder is to be written there; choose another name", dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fault.Usage("%s: cannot be read (%w); choose another folder", dir, fault.Reason(err))
	}
	own := false
	for _, e := range entries {
		if !e.Type().IsRegular() || !slices.Contains(modelNames, e.Name()) {
			return fault.Usage("%s: holds %s, which is no file of a model folder; choose another folder or move it away, the folder would be replaced as a whole", dir, e.Name())
		}
		own = own || e.Name() == metaName
	}
	if len(entries) > 0 && !own {
		return fault.Usage("%s: holds %s and no %s, so it was not written by this program; choose another folder, it would be replaced as a whole", dir, entries[0].Name(), metaName)
	}
	return nil
}

// mayReplaceGGUF refuses (2) to put a GGUF file in the place of another kind.
func mayReplaceGGUF(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fault.Usage("%s: cannot be read (%w); choose another name", path, fault.Reason(err))
	case info.IsDir():
		return fault.Usage("%s: is a folder, and a GGUF file is to be written there; name a file", path)
	case !info.Mode().IsRegular() || info.Size() == 0:
		return nil // nothing to lose; what is no file at all is refused when it is written
	}
	f, err := os.Open(path)
	if err != nil {
		return fault.Usage("%s: cannot be read (%w); choose another name", path, fault.Reason(err))
	}
	defer f.Close()
	magic := make([]byte, len(gguf.Magic))
	if _, err := io.ReadFull(f, magic); err != nil || string(magic) != gguf.Magic {
		return fault.Usage("%s: is there and no GGUF file, it would be replaced; choose another name", path)
	}
	return nil
}
