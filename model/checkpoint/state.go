package checkpoint

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"promptgen/internal/atomicdir"
	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model"
	"promptgen/model/checkpoint/blob"
	"promptgen/model/checkpoint/safetensors"
)

// State is everything that a training needs to go on as if it had never
// stopped.
type State struct {
	Params *model.Params // the weights; their Config is stored along
	M, V   *model.Params // AdamW's two moments; without data for weights that are not trained

	Step     int64  // optimizer steps done
	Epoch    int    // epochs done
	Position int64  // windows of the running epoch that have been consumed
	Seed     uint64 // of the run: order and dropout follow from it and the step

	// What must be the same when the run goes on, and what names a difference.
	ConfigHash string
	DataHash   string
	VocabHash  string
	Settings   json.RawMessage // the run's options, in train's own form

	Metrics []byte // metrics.jsonl as far as it goes

	Dir     string  // the folder that it was read from or written to
	Damaged []error // what is wrong with the newer ones that LatestState passed over
}

// The files of a state's folder. The manifest is written last.
const (
	stateTensors  = "state.safetensors"
	stateFacts    = "state.json"
	stateMetrics  = "metrics.jsonl"
	statesKept    = 2
	stateFolder   = "state" // where a training's output folder keeps its states
	statePrefix   = "step-"
	momentsPrefix = "exp_avg."    // PyTorch's names for AdamW's moments
	squaresPrefix = "exp_avg_sq." //
)

// stateJSON is state.json.
type stateJSON struct {
	Format     int             `json:"format"`
	Config     model.Config    `json:"config"`
	Untied     bool            `json:"untied_head,omitempty"`
	Step       int64           `json:"step"`
	Epoch      int             `json:"epoch"`
	Position   int64           `json:"position"`
	Seed       uint64          `json:"seed"`
	ConfigHash string          `json:"config_hash"`
	DataHash   string          `json:"data_hash"`
	VocabHash  string          `json:"vocab_hash"`
	Settings   json.RawMessage `json:"settings,omitempty"`
}

// SaveState writes the state into a folder of its own under dir,
// step-000000123, whole or not at all, and then removes all but the two newest.
// s.Dir is set to the new folder.
func SaveState(ctx context.Context, dir string, s *State) error {
	to := filepath.Join(dir, fmt.Sprintf("%s%09d", statePrefix, s.Step))
	err := atomicdir.Write(ctx, to, func(tmp string) error {
		m := newManifest(tmp)
		if err := m.write(stateTensors, s.writeTensors); err != nil {
			return err
		}
		facts := stateJSON{formatVersion, s.Params.Config, !s.Params.HeadTied, s.Step, s.Epoch, s.Position, s.Seed,
			s.ConfigHash, s.DataHash, s.VocabHash, s.Settings}
		if err := m.writeJSON(stateFacts, facts); err != nil {
			return err
		}
		if err := m.writeBytes(stateMetrics, s.Metrics); err != nil {
			return err
		}
		return m.close()
	})
	if err != nil {
		return fmt.Errorf("saving the training state: %w", err)
	}
	s.Dir = to
	return PruneStates(dir)
}

func (s *State) writeTensors(w io.Writer) error {
	var parts []safetensors.Part
	for _, g := range []struct {
		prefix string
		p      *model.Params
	}{{"", s.Params}, {momentsPrefix, s.M}, {squaresPrefix, s.V}} {
		for _, t := range g.p.Tensors {
			if t.Data == nil {
				continue
			}
			parts = append(parts, safetensors.Floats(g.prefix+t.Name, t.Shape, t.Data, blob.F32))
		}
	}
	return safetensors.Write(w, parts, map[string]string{"format": "pt"})
}

// PruneStates removes all but the two newest states, as every save does in the
// end: one that was killed just before has left one more.
func PruneStates(dir string) error {
	names, err := stateDirs(dir)
	if err != nil {
		return err
	}
	for _, name := range names[min(statesKept, len(names)):] {
		if err := atomicdir.Remove(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("removing an old training state: %w", err)
		}
	}
	return nil
}

var stateName = regexp.MustCompile(`^step-([0-9]{9,18})$`)

// stateDirs lists the states under dir, newest first; none where dir is missing.
func stateDirs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && stateName.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(stepOf(b), stepOf(a)) })
	return names, nil
}

// stepOf is the step in the name of a state's folder.
func stepOf(name string) int64 {
	n, _ := strconv.ParseInt(stateName.FindStringSubmatch(name)[1], 10, 64)
	return n
}

// LatestState reads the newest state under dir that is whole; nil, nil where
// there is none at all. Where there are states and none is whole, that is
// fault.Corrupt.
func LatestState(dir string) (*State, error) {
	names, err := stateDirs(dir)
	if err != nil {
		return nil, err
	}
	var damaged []error
	for _, name := range names {
		s, err := LoadState(filepath.Join(dir, name))
		if err == nil {
			s.Damaged = damaged
			return s, nil
		}
		damaged = append(damaged, err)
	}
	if len(damaged) > 0 {
		return nil, fault.Corrupt("no training state under %s is whole (%w); remove the folder to start afresh", dir, damaged[0])
	}
	return nil, nil
}

// RemoveStates removes every training state under dir that is of a later step
// than after (-1: every one), newest first. A run that starts afresh, or goes on
// from an earlier step, must not find them when it is resumed.
func RemoveStates(dir string, after int64) error {
	names, err := stateDirs(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if stepOf(name) <= after {
			break
		}
		if err := atomicdir.Remove(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("removing a training state: %w", err)
		}
	}
	return nil
}

// LoadState reads the state in dir (a step-… folder), after comparing every
// file with the manifest's checksums. Weights and moments are in memory of their
// own: the folder may be removed while they are used.
func LoadState(dir string) (*State, error) {
	if err := checkManifest(dir); err != nil {
		return nil, err
	}
	var facts stateJSON
	if err := readJSON(filepath.Join(dir, stateFacts), &facts); err != nil {
		return nil, err
	}
	if facts.Format > formatVersion {
		return nil, fault.Corrupt("%s: is of format %d, and this program reads up to %d; use a newer one", dir, facts.Format, formatVersion)
	}
	if l := facts.Config.Faults(); len(l) > 0 {
		return nil, fault.With(fault.CodeCorrupt, l.Err(filepath.Join(dir, stateFacts)))
	}
	s := &State{
		Step: facts.Step, Epoch: facts.Epoch, Position: facts.Position, Seed: facts.Seed,
		ConfigHash: facts.ConfigHash, DataHash: facts.DataHash, VocabHash: facts.VocabHash,
		Settings: facts.Settings, Dir: dir,
	}
	var err error
	if s.Metrics, err = os.ReadFile(filepath.Join(dir, stateMetrics)); err != nil {
		return nil, err
	}
	return s, s.readTensors(filepath.Join(dir, stateTensors), facts.Config, facts.Untied)
}

func (s *State) readTensors(path string, c model.Config, untied bool) error {
	f, err := blob.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sf, err := safetensors.Parse(path, f.Bytes)
	if err != nil {
		return err
	}
	byName := index(sf.Tensors)
	specs := c.Tensors(untied)
	read := func(prefix string) (*model.Params, error) {
		found, n := make([]blob.Tensor, len(specs)), 0
		for i, spec := range specs { // all checked before anything is allocated
			t, ok := byName[prefix+spec.Name]
			if !ok && prefix != "" {
				continue // not trained
			}
			if !ok || !blob.SameShape(t.Shape, spec.Shape) || t.DType != blob.F32 {
				return nil, fault.Corrupt("%s: tensor %s is missing or of another shape than its config says", path, prefix+spec.Name)
			}
			found[i] = t
			n += spec.Len()
		}
		data, arena := make([][]float32, len(specs)), kernel.Alloc(n)
		for i, t := range found {
			if t.Bytes == nil {
				continue
			}
			n := specs[i].Len()
			data[i], arena = arena[:n:n], arena[n:]
			blob.Decode(data[i], t.DType, t.Bytes)
		}
		return model.ParamsFrom(c, untied, data), nil
	}
	for _, g := range []struct {
		prefix string
		p      **model.Params
	}{{"", &s.Params}, {momentsPrefix, &s.M}, {squaresPrefix, &s.V}} {
		if *g.p, err = read(g.prefix); err != nil {
			return err
		}
	}
	return nil
}
