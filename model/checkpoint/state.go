package checkpoint

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"promptgen/internal/atomicdir"
	"promptgen/internal/fault"
	"promptgen/model"
	"promptgen/model/checkpoint/blob"
	"promptgen/model/checkpoint/safetensors"
)

// State is everything that a training needs to go on as if it had never
// stopped.
type State struct {
	// What is saved. A state that was found has them on disk still: see Read.
	Params *model.Params  // the weights
	M, V   *model.Moments // AdamW's two moments, of the weights that are trained

	// Of the weights; SaveState takes them from Params.
	Config model.Config
	Untied bool       // the head has weights of its own
	LoRA   model.LoRA // with adapters, they alone are in the state; the base is where it was

	Step  int64  // optimizer steps done
	Epoch int    // epochs done
	Seed  uint64 // of the run: order and dropout follow from it and the step

	// What must be the same when the run goes on, and what names a difference.
	DataHash  string
	VocabHash string
	Settings  json.RawMessage // the run's options and place, in train's own form

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
	Format    int             `json:"format"`
	Config    model.Config    `json:"config"`
	Untied    bool            `json:"untied_head,omitempty"`
	LoRA      *model.LoRA     `json:"lora,omitempty"`
	Step      int64           `json:"step"`
	Epoch     int             `json:"epoch"`
	Seed      uint64          `json:"seed"`
	DataHash  string          `json:"data_hash"`
	VocabHash string          `json:"vocab_hash"`
	Settings  json.RawMessage `json:"settings,omitempty"`
}

// SaveState writes the state into a folder of its own under dir,
// step-000000123, whole or not at all, and then removes all but the two newest.
// s.Dir is set to the new folder.
func SaveState(ctx context.Context, dir string, s *State) error {
	to := filepath.Join(dir, fmt.Sprintf("%s%09d", statePrefix, s.Step))
	s.Config, s.Untied, s.LoRA = s.Params.Config, !s.Params.HeadTied, s.Params.LoRA
	var lora *model.LoRA
	if s.LoRA.On() {
		lora = &s.LoRA
	}
	err := atomicdir.Write(ctx, to, func(tmp string) error {
		m := newManifest(tmp)
		if err := m.write(stateTensors, s.writeTensors); err != nil {
			return err
		}
		facts := stateJSON{formatVersion, s.Config, s.Untied, lora, s.Step, s.Epoch, s.Seed,
			s.DataHash, s.VocabHash, s.Settings}
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
	return PruneStates(ctx, dir)
}

func (s *State) writeTensors(w io.Writer) error {
	var parts []safetensors.Part
	for _, t := range s.within(s.Params) {
		parts = append(parts, safetensors.Floats(t.Name, t.Shape, t.Data, blob.F32))
	}
	for _, g := range []struct {
		prefix string
		m      *model.Moments
	}{{momentsPrefix, s.M}, {squaresPrefix, s.V}} {
		for _, t := range g.m.Tensors {
			switch {
			case t.BF16 != nil:
				parts = append(parts, safetensors.Halves(g.prefix+t.Name, t.Shape, t.BF16))
			case t.F32 != nil:
				parts = append(parts, safetensors.Floats(g.prefix+t.Name, t.Shape, t.F32, blob.F32))
			}
		}
	}
	return safetensors.Write(w, parts, map[string]string{"format": "pt"})
}

// within are the weights of p that the state holds.
func (s *State) within(p *model.Params) []model.Tensor {
	if s.LoRA.On() {
		return p.Adapters()
	}
	return p.Tensors
}

// specs are the same by name and shape.
func (s *State) specs() []model.TensorSpec {
	if s.LoRA.On() {
		return s.LoRA.Tensors(s.Config)
	}
	return s.Config.Tensors(s.Untied)
}

// PruneStates removes all but the two newest states, as every save does in the
// end: one that was killed just before has left one more.
func PruneStates(ctx context.Context, dir string) error {
	names, err := stateDirs(dir)
	if err != nil {
		return err
	}
	for _, name := range names[min(statesKept, len(names)):] {
		if err := atomicdir.Remove(ctx, filepath.Join(dir, name)); err != nil {
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
// fault.Corrupt. Only damage is passed over: a state that cannot be read for
// another reason may be worth more than the one before it.
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
		if fault.Code(err) != fault.CodeCorrupt || errors.Is(err, errNewer) {
			return nil, fmt.Errorf("%w, or remove the folder %s to go on from before it", err, filepath.Join(dir, name))
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
func RemoveStates(ctx context.Context, dir string, after int64) error {
	names, err := stateDirs(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if stepOf(name) <= after {
			break
		}
		if err := atomicdir.Remove(ctx, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("removing a training state: %w", err)
		}
	}
	return nil
}

// LoadState finds the state in dir (a step-… folder), after comparing every
// file with the manifest's checksums; weights and moments are left on disk, for
// Read to take them to where they are needed.
func LoadState(dir string) (*State, error) {
	if err := checkManifest(dir); err != nil {
		return nil, err
	}
	var facts stateJSON
	if err := readJSON(filepath.Join(dir, stateFacts), &facts); err != nil {
		return nil, err
	}
	if facts.Format > formatVersion {
		return nil, tooNew(dir, facts.Format)
	}
	if l := facts.Config.Faults(); len(l) > 0 {
		return nil, fault.With(fault.CodeCorrupt, l.Err(filepath.Join(dir, stateFacts)))
	}
	s := &State{
		Config: facts.Config, Untied: facts.Untied,
		Step: facts.Step, Epoch: facts.Epoch, Seed: facts.Seed,
		DataHash: facts.DataHash, VocabHash: facts.VocabHash,
		Settings: facts.Settings, Dir: dir,
	}
	if facts.LoRA != nil {
		s.LoRA = *facts.LoRA
		if l := s.LoRA.Faults(s.Config); len(l) > 0 {
			return nil, fault.With(fault.CodeCorrupt, l.Err(filepath.Join(dir, stateFacts)))
		}
	}
	var err error
	if s.Metrics, err = os.ReadFile(filepath.Join(dir, stateMetrics)); err != nil {
		return nil, err
	}
	f, _, err := s.tensors()
	if err != nil {
		return nil, err
	}
	return s, f.Close()
}

// statePrefixes are those of the weights and of the two moments, in the order
// of the file.
var statePrefixes = [...]string{"", momentsPrefix, squaresPrefix}

// tensors opens the state's tensors and finds those that the config asks for:
// weights, first and second moments. Moments of weights that were not trained
// are missing and have no Bytes.
func (s *State) tensors() (*blob.File, [len(statePrefixes)][]blob.Tensor, error) {
	var all [len(statePrefixes)][]blob.Tensor
	path := filepath.Join(s.Dir, stateTensors)
	f, err := openPart(path)
	if err != nil {
		return nil, all, err
	}
	sf, err := safetensors.Parse(path, f.Bytes)
	if err != nil {
		f.Close()
		return nil, all, err
	}
	byName := index(sf.Tensors)
	for k, prefix := range statePrefixes {
		for _, spec := range s.specs() {
			t, ok := byName[prefix+spec.Name]
			if !ok && k > 0 { // not trained
				all[k] = append(all[k], blob.Tensor{})
				continue
			}
			if !ok || !blob.SameShape(t.Shape, spec.Shape) || t.DType != blob.F32 && (k == 0 || t.DType != blob.BF16) {
				f.Close()
				return nil, all, fault.Corrupt("%s: tensor %s is missing, or of another shape or type than its config says", path, prefix+spec.Name)
			}
			all[k] = append(all[k], t)
		}
	}
	return f, all, nil
}

// Read copies the weights and moments of a state that was found to memory of
// the caller's, whose head must be tied as the state's is. Where a tensor there
// has fewer rows (a shorter position table), the first ones are taken; moments
// are converted to the caller's format. Never more than a piece of the file is
// in memory.
func (s *State) Read(p *model.Params, m, v *model.Moments) error {
	f, all, err := s.tensors()
	if err != nil {
		return err
	}
	defer f.Close()
	own := s.within(p)
	if len(own) != len(all[0]) {
		return fmt.Errorf("%s: holds %d tensors, and there is room for %d", s.Dir, len(all[0]), len(own))
	}
	first := len(p.Tensors) - len(own)
	for i, t := range own {
		if len(t.Data) > all[0][i].Len() {
			return fmt.Errorf("%s: tensor %s is smaller than there is room for", s.Dir, t.Name)
		}
		f.Decode(t.Data, all[0][i])
		for k, dst := range []model.Moment{m.Tensors[first+i], v.Tensors[first+i]} {
			src := all[1+k][i]
			switch {
			case dst.Kept() && src.Bytes == nil:
				return fault.Corrupt("%s: has no moments of %s, which the run trains", s.Dir, t.Name)
			case dst.BF16 != nil:
				f.DecodeBF16(dst.BF16, src)
			case dst.F32 != nil:
				f.Decode(dst.F32, src)
			}
		}
	}
	return nil
}
