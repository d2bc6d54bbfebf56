package checkpoint

import (
	"bytes"
	"cmp"
	"os"
	"path/filepath"

	"promptgen/internal/fault"
	"promptgen/model"
	"promptgen/model/checkpoint/blob"
	"promptgen/model/checkpoint/gguf"
	"promptgen/model/checkpoint/safetensors"
	"promptgen/model/checkpoint/torchfile"
	"promptgen/tokenizer"
)

// Info is what Inspect finds out about a file or folder.
type Info struct {
	Path  string `json:"path"`
	Kind  string `json:"kind"` // "model folder", "adapter folder", "gguf file", "safetensors file", "pytorch file", "training state", "training output"
	Bytes int64  `json:"bytes"`

	Config     *model.Config `json:"config,omitempty"`
	Parameters int64         `json:"parameters,omitempty"`
	DType      string        `json:"dtype,omitempty"`
	UntiedHead bool          `json:"untied_head,omitempty"`
	Tensors    []TensorInfo  `json:"tensors,omitempty"`

	VocabSize int             `json:"vocab_size,omitempty"`
	VocabHash string          `json:"vocab_hash,omitempty"`
	Level     tokenizer.Level `json:"level,omitempty"`
	LowerCase bool            `json:"lower_case,omitempty"`
	BOS       string          `json:"bos_token,omitempty"`
	EOS       string          `json:"eos_token,omitempty"`

	Base *Base       `json:"base,omitempty"` // of adapters
	LoRA *model.LoRA `json:"lora,omitempty"` // likewise

	Training *Training `json:"training,omitempty"`
	Step     int64     `json:"step,omitempty"`  // training states
	Epoch    int       `json:"epoch,omitempty"` //

	Whole   bool     `json:"whole"`
	Problem string   `json:"problem,omitempty"` // why it is not whole
	Notes   []string `json:"notes"`             // never nil: a list in JSON

	err error
}

// Err is Problem with its exit code, nil where the path is whole.
func (in *Info) Err() error { return in.err }

// TensorInfo is one tensor of a file.
type TensorInfo struct {
	Name  string `json:"name"`
	DType string `json:"dtype"`
	Shape []int  `json:"shape"`
}

// Inspect says what a path is, and whether it is whole: a model folder, a file
// of weights, a training's output folder or one of its states. What is damaged
// is reported in Problem; an error means that there is nothing to report on.
func Inspect(path string) (*Info, error) {
	st, err := statModel(path)
	if err != nil {
		return nil, err
	}
	in := &Info{Path: path, Bytes: st.Size()}
	if st.IsDir() {
		in.Bytes = folderSize(path)
		err = in.folder()
	} else {
		err = in.file()
	}
	if err != nil {
		if in.Kind == "" {
			return nil, err
		}
		in.Problem = err.Error()
	}
	in.Whole, in.err = err == nil, err
	in.Notes = append([]string{}, in.Notes...)
	return in, nil
}

func (in *Info) folder() error {
	has := func(name string) bool { return exists(filepath.Join(in.Path, name)) }
	switch {
	case has(stateFacts):
		in.Kind = "training state"
		return in.state(in.Path)
	case has(adapterConfigName):
		in.Kind = "adapter folder"
		return in.adapter()
	case has(configName):
		in.Kind = "model folder"
		return in.model()
	}
	for _, sub := range []string{in.Path, filepath.Join(in.Path, stateFolder)} {
		if names, err := stateDirs(sub); err == nil && len(names) > 0 {
			in.Kind = "training output"
			in.Notes = append(in.Notes, "described by its newest training state, "+filepath.Join(sub, names[0]))
			return in.state(filepath.Join(sub, names[0]))
		}
	}
	return fault.Corrupt("%s: is neither a model folder (no %s) nor a training's output", in.Path, configName)
}

// model loads a model as every command does, and then compares the files with
// the sums in promptgen.json, which takes reading all of them.
func (in *Info) model() error {
	m, err := Load(in.Path, LoadOptions{})
	if err != nil {
		return err
	}
	defer m.Close()
	in.describe(m.Params.Config, m.Params.Config.Tensors(!m.Params.HeadTied), m.stored)
	in.DType, in.UntiedHead, in.Notes = m.DType, !m.Params.HeadTied, m.Notes
	in.VocabHash, in.Training = m.Meta.VocabHash, m.Meta.Training
	in.Level, in.LowerCase = m.Meta.Level, m.Meta.LowerCase
	in.BOS, in.EOS = tokenName(m.Vocab, m.BOS), tokenName(m.Vocab, m.EOS)
	if m.Vocab != nil {
		in.VocabSize, in.VocabHash = m.Vocab.Len(), m.Vocab.Hash()
	} else {
		in.Notes = append(in.Notes, "no vocabulary in it; name one with --vocab")
	}
	if in.Kind != "model folder" {
		return nil
	}
	return checkSums(in.Path, m.Meta.Files)
}

// state reads a training state, checksums and all.
func (in *Info) state(dir string) error {
	s, err := LoadState(dir)
	if err != nil {
		return err
	}
	in.describe(s.Config, s.specs(), nil)
	if s.LoRA.On() {
		in.LoRA = &s.LoRA
	}
	in.DType, in.VocabHash = "fp32", s.VocabHash
	in.VocabSize = s.Config.VocabSize
	in.Step, in.Epoch, in.UntiedHead = s.Step, s.Epoch, s.Untied
	in.Training = &Training{Steps: s.Step, Epochs: s.Epoch, Seed: s.Seed, DataHash: s.DataHash}
	return nil
}

// describe lists the tensors; those that stored does not have are F32.
func (in *Info) describe(c model.Config, specs []model.TensorSpec, stored map[string]blob.DType) {
	in.Config = &c
	for _, t := range specs {
		in.Parameters += int64(t.Len())
		d := cmp.Or(stored[t.Name], blob.F32)
		in.list(t.Name, d, t.Shape)
	}
}

// list adds a tensor; a single number has no dimensions, which is a list too.
func (in *Info) list(name string, d blob.DType, shape []int) {
	in.Tensors = append(in.Tensors, TensorInfo{name, string(d), append([]int{}, shape...)})
}

// file looks at a single file of weights by how it begins.
func (in *Info) file() error {
	f, err := blob.Open(in.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	if bytes.HasPrefix(f.Bytes, []byte(gguf.Magic)) {
		in.Kind = "gguf file"
		return in.model()
	}
	kind, tensors, err := parseAny(in.Path, f.Bytes)
	in.Kind = kind
	if err != nil {
		return err
	}
	byName := index(tensors)
	tied := bytes.Equal(byName[headName].Bytes, byName[bodyPrefix+"wte.weight"].Bytes)
	for _, t := range tensors {
		in.list(t.Name, t.DType, t.Shape)
		if t.DType.IsWeight() && !isMask(t.Name) && !(t.Name == headName && tied) {
			in.Parameters += int64(t.Len())
		}
	}
	in.DType = weightType(tensors)
	return nil
}

// parseAny reads a file of weights alone.
func parseAny(path string, b []byte) (kind string, tensors []blob.Tensor, err error) {
	switch {
	case torchfile.Is(b):
		tensors, err = torchfile.Parse(path, b)
		return "pytorch file", tensors, err
	case len(b) > 8 && b[8] == '{':
		sf, err := safetensors.Parse(path, b)
		if err != nil {
			return "safetensors file", nil, err
		}
		return "safetensors file", sf.Tensors, nil
	}
	return "", nil, fault.Corrupt("%s: is no file of weights (safetensors, pytorch or gguf)", path)
}

// folderSize is the length of all files below a folder.
func folderSize(dir string) (n int64) {
	filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err != nil {
			return nil // what cannot be looked at is not counted
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	return n
}
