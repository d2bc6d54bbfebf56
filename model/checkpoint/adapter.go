package checkpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"promptgen/internal/atomicdir"
	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model"
	"promptgen/model/checkpoint/blob"
	"promptgen/model/checkpoint/safetensors"
)

// An adapter folder is what PEFT writes: the low-rank matrices alone, and the
// name of the model that they belong to. promptgen.json beside them says which
// weights that model must have.

const (
	adapterConfigName = "adapter_config.json"
	adapterName       = "adapter_model.safetensors"
	adapterTorchName  = "adapter_model.bin"
)

// Base is the model that adapters were trained on.
type Base struct {
	Path string `json:"path"`
	Hash string `json:"hash"` // WeightsHash of it
}

// WeightsHash names the weights of a model, whatever file they lie in: SHA-256
// over the hashes of its tensors. Adapters do not count.
func WeightsHash(p *model.Params) string {
	tensors := p.Tensors[:len(p.Tensors)-len(p.Adapters())]
	sums := make([][sha256.Size]byte, len(tensors))
	inParallel(len(tensors), func(i int) { sums[i] = sha256.Sum256(blob.AsBytes(tensors[i].Data)) })
	h := sha256.New()
	for i, t := range tensors {
		fmt.Fprintf(h, "%s %v %x\n", t.Name, t.Shape, sums[i])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// adapterConfig is adapter_config.json, in PEFT's terms.
type adapterConfig struct {
	Type       string        `json:"peft_type"`
	Task       string        `json:"task_type"`
	Base       string        `json:"base_model_name_or_path"`
	Rank       int           `json:"r"`
	Alpha      float64       `json:"lora_alpha"`
	Dropout    float64       `json:"lora_dropout"`
	Targets    targetModules `json:"target_modules"`
	FanInOut   bool          `json:"fan_in_fan_out"` // GPT-2's matrices are [in, out]
	Bias       string        `json:"bias"`
	Inference  bool          `json:"inference_mode"`
	Initialize any           `json:"init_lora_weights"`

	// What PEFT has and this program does not, or only reads.
	RSLoRA  bool               `json:"use_rslora"`
	DoRA    bool               `json:"use_dora"`
	Modules []string           `json:"modules_to_save"`
	Ranks   map[string]int     `json:"rank_pattern"`
	Alphas  map[string]float64 `json:"alpha_pattern"`
}

// targetModules is a list, or one expression.
type targetModules []string

func (t *targetModules) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = targetModules{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(t))
}

// refuse names what this program does not have.
func (a *adapterConfig) refuse(path string) error {
	switch {
	case a.Type != "LORA":
		return fault.Corrupt("%s: describes a %q adapter, and this program reads LORA only", path, blob.Clip(a.Type))
	case a.Rank < 1 || a.Rank > model.MaxRank || !(math.Abs(a.Alpha) < 1e9):
		return fault.Corrupt("%s: r %d and lora_alpha %g describe no adapter", path, a.Rank, a.Alpha)
	case a.DoRA:
		return fault.Corrupt("%s: use_dora is not supported; merge the adapter with PEFT first", path)
	case a.Bias != "" && a.Bias != "none":
		return fault.Corrupt("%s: bias %q is not supported; merge the adapter with PEFT first", path, blob.Clip(a.Bias))
	case len(a.Modules) > 0 || len(a.Ranks) > 0 || len(a.Alphas) > 0:
		return fault.Corrupt("%s: modules_to_save, rank_pattern and alpha_pattern are not supported; merge the adapter with PEFT first", path)
	}
	return nil
}

func (a *adapterConfig) scale() float32 {
	if a.RSLoRA {
		return float32(a.Alpha / math.Sqrt(float64(a.Rank)))
	}
	return float32(a.Alpha / float64(a.Rank))
}

// isAdapter says whether a path is an adapter folder.
func isAdapter(path string) bool { return exists(filepath.Join(path, adapterConfigName)) }

// saveAdapter writes the adapters of m as a folder.
func saveAdapter(ctx context.Context, dir string, m *Model) error {
	l := m.Params.LoRA
	config := adapterConfig{
		Type: "LORA", Task: "CAUSAL_LM", Base: m.Base.Path, Rank: l.Rank, Alpha: l.Alpha, Dropout: l.Dropout, Targets: l.Targets,
		FanInOut: true, Bias: "none", Inference: true, Initialize: true,
	}
	err := atomicdir.Write(ctx, dir, func(tmp string) error {
		out := newManifest(tmp)
		if err := out.writeJSON(adapterConfigName, config); err != nil {
			return err
		}
		var parts []safetensors.Part
		for _, t := range m.Params.Adapters() {
			parts = append(parts, safetensors.Floats(t.Name, t.Shape, t.Data, blob.F32))
		}
		if err := out.writeParts(adapterName, parts); err != nil {
			return err
		}
		if len(m.UserDict) > 0 {
			if err := out.writeBytes(userDictName, m.UserDict); err != nil {
				return err
			}
		}
		return out.writeJSON(metaName, m.writtenMeta(out))
	})
	if err != nil {
		return fmt.Errorf("saving the adapters: %w", err)
	}
	return nil
}

// findBase is where the base model of the adapters in dir lies.
func findBase(dir, base string) (string, error) {
	if base == "" {
		return "", fault.Usage("%s: does not name its base model; name it with --base", dir)
	}
	places := []string{base}
	if !filepath.IsAbs(base) {
		places = append(places, filepath.Join(dir, base))
	}
	for _, p := range places {
		switch _, err := os.Stat(p); {
		case err != nil:
		case isAdapter(p):
			return "", fault.Corrupt("%s: its base model %s has adapters itself; export --merge that one", dir, p)
		default:
			return p, nil
		}
	}
	return "", fault.Usage("%s: its base model %s is not there; bring it back, or name it with --base", dir, blob.Clip(base))
}

// loadAdapter reads the base of the adapters in dir and adds them to it.
func (m *Model) loadAdapter(dir string, o LoadOptions) error {
	path := filepath.Join(dir, adapterConfigName)
	var a adapterConfig
	if err := readJSON(path, &a); err != nil {
		return err
	}
	if err := a.refuse(path); err != nil {
		return err
	}
	meta, err := readMeta(dir)
	if err != nil {
		return err
	}
	place := o.Base
	if place == "" {
		place = a.Base
	}
	if place, err = findBase(dir, place); err != nil {
		return err
	}
	o.KeepEncoded, o.Base = false, ""
	base, err := Load(place, o)
	if err != nil {
		return err
	}
	*m = *base
	m.Base = &Base{Path: place, Hash: WeightsHash(m.Params)}
	m.LoRA = model.LoRA{Rank: a.Rank, Alpha: a.Alpha, Dropout: a.Dropout, Targets: a.Targets}
	if meta.Base == nil {
		m.Notes = append(m.Notes, fmt.Sprintf("%s: does not say which weights its base model must have; %s is taken as it is", dir, place))
	} else if meta.Base.Hash != m.Base.Hash {
		return fault.Corrupt("%s: was trained on other weights than those of its base model %s (hash %.12s, now %.12s); bring those back, or name them with --base",
			dir, place, meta.Base.Hash, m.Base.Hash)
	}
	if err := m.takeMeta(dir, meta); err != nil {
		return err
	}
	return m.mergeAdapter(dir, &a, o.Kernel)
}

// takeMeta takes over what the adapters' own promptgen.json says of the text that
// they were trained on.
func (m *Model) takeMeta(dir string, meta Meta) error {
	if meta.Format == 0 {
		return nil
	}
	if m.Vocab != nil && meta.VocabHash != "" && m.Vocab.Hash() != meta.VocabHash {
		return fault.Corrupt("%s: was trained with another vocabulary than that of its base model %s", dir, m.Base.Path)
	}
	if m.Vocab != nil {
		m.BOS, m.EOS, m.PAD = tokenID(m.Vocab, meta.BOS), tokenID(m.Vocab, meta.EOS), tokenID(m.Vocab, meta.PAD)
	}
	m.Meta, m.UserDict, m.userDictPath = meta, nil, ""
	return m.loadUserDict(dir)
}

// mergeAdapter adds the low-rank matrices of a folder to those of the model.
func (m *Model) mergeAdapter(dir string, a *adapterConfig, how kernel.Options) error {
	w := &weightsFile{path: filepath.Join(dir, adapterName)}
	if !exists(w.path) && exists(filepath.Join(dir, adapterTorchName)) {
		w.path = filepath.Join(dir, adapterTorchName)
	}
	defer w.close()
	tensors, err := w.open(w.path)
	if err != nil {
		return err
	}
	byName := make(map[string]blob.Tensor, len(tensors))
	for _, t := range tensors {
		byName[strings.Replace(t.Name, ".default.weight", ".weight", 1)] = t
	}
	cpu, err := kernel.New(how)
	if err != nil {
		return fault.With(fault.CodeUsage, err)
	}
	defer cpu.Close()
	all := model.LoRA{Rank: a.Rank, Alpha: 1, Targets: model.DefaultTargets()}
	found := 0
	for _, t := range m.Params.Tensors {
		nameA, nameB := model.AdapterNames(t.Name)
		_, hasA := byName[nameA]
		_, hasB := byName[nameB]
		if !all.Adapts(t.TensorSpec) || !hasA && !hasB {
			continue
		}
		var low [2][]float32
		for i, want := range []model.TensorSpec{{Name: nameA, Shape: []int{a.Rank, t.Shape[0]}}, {Name: nameB, Shape: []int{t.Shape[1], a.Rank}}} {
			part, ok := byName[want.Name]
			if err := fits(w.path, want, part, ok); err != nil {
				return err
			}
			low[i] = part.Floats()
			delete(byName, want.Name)
		}
		model.LowRank{A: low[0], B: low[1]}.Add(cpu, t, a.Rank, a.scale())
		found++
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		return fault.Corrupt("%s: holds the tensor %s, which is no adapter of this model's matrices", w.path, blob.Clip(name))
	}
	if found == 0 {
		return fault.Corrupt("%s: holds no adapters", w.path)
	}
	return nil
}

// adapter describes an adapter folder: what it adds to what.
func (in *Info) adapter() error {
	m, err := Load(in.Path, LoadOptions{})
	if err != nil {
		return err
	}
	defer m.Close()
	c := m.Params.Config
	in.Config, in.Notes = &c, m.Notes
	in.Base, in.LoRA = m.Base, &m.LoRA
	in.VocabHash, in.Training, in.Level, in.LowerCase = m.Meta.VocabHash, m.Meta.Training, m.Meta.Level, m.Meta.LowerCase
	w := &weightsFile{}
	defer w.close()
	name := adapterName
	if !exists(filepath.Join(in.Path, name)) {
		name = adapterTorchName
	}
	tensors, err := w.open(filepath.Join(in.Path, name))
	if err != nil {
		return err
	}
	slices.SortFunc(tensors, func(a, b blob.Tensor) int { return strings.Compare(a.Name, b.Name) })
	for _, t := range tensors {
		in.Parameters += int64(t.Len())
		in.list(t.Name, t.DType, t.Shape)
	}
	in.DType = weightType(tensors)
	return checkSums(in.Path, m.Meta.Files)
}
