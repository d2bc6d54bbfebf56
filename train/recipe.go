package train

import (
	"encoding/json"
	"os"
	"path/filepath"

	"promptgen/internal/fault"
	"promptgen/train/report"
	"promptgen/train/runlog"
)

// FromReport reads the options of a training that is to be repeated: from its
// report.html or run.json, from its output folder, or from a model folder that
// it wrote. With the same data they give the same weights to the bit on a
// machine with the same kernels; data or first weights that are not the same are
// refused by Run. A training that changed its options on the way is refused (2).
func FromReport(path string) (Options, error) {
	r, err := recipe(path)
	if err != nil {
		return Options{}, err
	}
	if r.Changed != "" {
		return Options{}, fault.Usage("%s: this training went on with other options than it began with (%s), and no single run gives the same weights; train anew with options of your own", path, r.Changed)
	}
	var o Options
	if err := json.Unmarshal(r.Options, &o); err != nil {
		return Options{}, fault.Corrupt("%s: its options cannot be read (%v)", path, err)
	}
	o.DataHash, o.Resume = r.Data.Hash, "never"
	o.Shrink = false // the config is what it was shrunk to
	return o, nil
}

func recipe(path string) (*runlog.Run, error) {
	var meta struct {
		Training struct {
			Run json.RawMessage `json:"run"`
		} `json:"training"`
	}
	const name = "promptgen.json" // of a model folder
	b, err := os.ReadFile(filepath.Join(path, name))
	if err != nil {
		return report.Recipe(path)
	}
	if err := json.Unmarshal(b, &meta); err != nil {
		return nil, fault.Corrupt("%s: is broken JSON (%v)", filepath.Join(path, name), err)
	}
	if len(meta.Training.Run) == 0 {
		return nil, fault.Usage("%s: the model does not say how it was trained", path)
	}
	return runlog.DecodeRun(filepath.Join(path, name), meta.Training.Run)
}

// repeats refuses data that is not what was said to be repeated.
func (t *trainer) repeats() error {
	if t.o.DataHash != "" && t.o.DataHash != t.hash {
		return fault.Corrupt("%s: not the data of the training that is to be repeated (hash %.12s, it had %.12s); name the same with --data",
			t.o.Data, t.hash, t.o.DataHash)
	}
	return nil
}
