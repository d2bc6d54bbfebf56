package checkpoint

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"promptgen/internal/fault"
	"promptgen/model"
	"promptgen/model/checkpoint/blob"
	"promptgen/model/checkpoint/safetensors"
	"promptgen/model/checkpoint/torchfile"
)

// The names under which a folder's weights may lie, best first.
const (
	safetensorsName  = "model.safetensors"
	safetensorsIndex = "model.safetensors.index.json"
	torchName        = "pytorch_model.bin"
	torchIndex       = "pytorch_model.bin.index.json"
)

// weightsFile is a folder's weights as they were found.
type weightsFile struct {
	path    string // for messages: the file, or the index of a sharded one
	tensors []blob.Tensor
	files   []*blob.File
}

func (w *weightsFile) close() {
	for _, f := range w.files {
		f.Close()
	}
}

// openWeights finds and reads the weights of a folder.
func openWeights(dir string) (*weightsFile, error) {
	for _, name := range []string{safetensorsName, safetensorsIndex, torchName, torchIndex} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		w := &weightsFile{path: path}
		var err error
		if filepath.Ext(name) == ".json" {
			err = w.openShards(dir)
		} else {
			w.tensors, err = w.open(path)
		}
		if err != nil {
			w.close()
			return nil, err
		}
		return w, nil
	}
	return nil, fault.Corrupt("%s: has no weights (%s or %s); it is no whole model folder", dir, safetensorsName, torchName)
}

// open reads one file of weights.
func (w *weightsFile) open(path string) ([]blob.Tensor, error) {
	f, err := openPart(path)
	if err != nil {
		return nil, err
	}
	w.files = append(w.files, f)
	if filepath.Ext(path) == ".bin" {
		tensors, err := torchfile.Parse(path, f.Bytes)
		f.LetGo(f.Bytes) // of which it has taken checksums
		return tensors, err
	}
	sf, err := safetensors.Parse(path, f.Bytes)
	if err != nil {
		return nil, err
	}
	return sf.Tensors, nil
}

// openShards reads the files that an index names. Their names come from the
// file, so none may leave the folder.
func (w *weightsFile) openShards(dir string) error {
	var idx struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := readJSON(w.path, &idx); err != nil {
		return err
	}
	if len(idx.WeightMap) == 0 {
		return fault.Corrupt("%s: has no weight_map; it is no index of shards", w.path)
	}
	for _, name := range slices.Compact(slices.Sorted(maps.Values(idx.WeightMap))) {
		if filepath.Base(name) != name || !filepath.IsLocal(name) || strings.ContainsAny(name, `/\:`) {
			return fault.Corrupt("%s: names the shard %s, which is not in the folder", w.path, blob.Clip(name))
		}
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			return fault.Corrupt("%s: names the shard %s, which is missing; copy it as well", w.path, name)
		}
		tensors, err := w.open(path)
		if err != nil {
			return err
		}
		for _, t := range tensors {
			if idx.WeightMap[t.Name] != name {
				return fault.Corrupt("%s: tensor %s lies in %s, and the index does not say so", w.path, blob.Clip(t.Name), name)
			}
		}
		w.tensors = append(w.tensors, tensors...)
	}
	if len(w.tensors) != len(idx.WeightMap) {
		return fault.Corrupt("%s: names %d tensors, and the shards hold %d; they do not belong together", w.path, len(idx.WeightMap), len(w.tensors))
	}
	return nil
}

// index finds tensors by their name.
func index(tensors []blob.Tensor) map[string]blob.Tensor {
	m := make(map[string]blob.Tensor, len(tensors))
	for _, t := range tensors {
		m[t.Name] = t
	}
	return m
}

const (
	bodyPrefix = "transformer." // that of a language model's keys; a bare GPT2Model's have none
	headName   = "lm_head.weight"
)

// canonical gives a key the name that Config.Tensors uses for it.
func canonical(name string) string {
	for _, p := range []string{"wte.", "wpe.", "h.", "ln_f."} {
		if strings.HasPrefix(name, p) {
			return bodyPrefix + name
		}
	}
	return name
}

// isMask tells the buffers of causal masks that older files carry.
func isMask(name string) bool {
	return strings.HasSuffix(name, ".attn.bias") || strings.HasSuffix(name, ".attn.masked_bias")
}

// assemble makes parameters of a file's tensors: everything that the config asks
// for must be there in its shape, and nothing that belongs to a body of another
// shape may be. tied is what config.json says of the head, nil where it says
// nothing. Every check comes before the first allocation.
func assemble(path string, c model.Config, tied *bool, tensors []blob.Tensor, keep bool) (p *model.Params, kept map[string]Encoded, notes []string, err error) {
	byName := make(map[string]blob.Tensor, len(tensors))
	for _, t := range tensors {
		name := canonical(t.Name)
		if _, twice := byName[name]; twice {
			return nil, nil, nil, fault.Corrupt("%s: tensor %s occurs twice", path, blob.Clip(name))
		}
		byName[name] = t
	}
	untied, err := untiedHead(path, tied, byName)
	if err != nil {
		return nil, nil, nil, err
	}
	specs := c.Tensors(untied)
	found := make([]blob.Tensor, len(specs))
	for i, s := range specs {
		t, ok := byName[s.Name]
		if err := fits(path, s, t, ok); err != nil {
			return nil, nil, nil, err
		}
		found[i] = t
		delete(byName, s.Name)
	}
	delete(byName, headName)
	if notes, err = leftOver(path, byName); err != nil {
		return nil, nil, nil, err
	}
	if err := disjoint(path, found); err != nil {
		return nil, nil, nil, err
	}
	if keep {
		kept = map[string]Encoded{}
		for i, t := range found {
			name := specs[i].Name
			if len(t.Shape) == 2 && t.DType != blob.F32 && name != bodyPrefix+"wpe.weight" {
				kept[name] = Encoded{t, name == bodyPrefix+"wte.weight" || name == headName}
				found[i] = blob.Tensor{}
			}
		}
	}
	return model.ParamsFrom(c, untied, floats(found)), kept, notes, nil
}

// untiedHead decides whether a head of its own is to be used: when config.json
// says so, or says nothing and the file's head is not the embedding again.
func untiedHead(path string, tied *bool, byName map[string]blob.Tensor) (bool, error) {
	head, has := byName[headName]
	switch {
	case tied != nil && !*tied && !has:
		return false, fault.Corrupt("%s: lacks the tensor %s, which tie_word_embeddings false asks for", path, headName)
	case tied != nil:
		return !*tied, nil
	case !has:
		return false, nil
	}
	wte := byName[bodyPrefix+"wte.weight"]
	return !bytes.Equal(head.Bytes, wte.Bytes), nil
}

// fits compares a tensor with what the model's config asks for.
func fits(path string, want model.TensorSpec, t blob.Tensor, ok bool) error {
	switch {
	case !ok:
		return fault.Corrupt("%s: lacks the tensor %s that its config asks for; the file is not whole or of another model", path, want.Name)
	case !t.DType.IsWeight():
		return fault.Corrupt("%s: tensor %s is of type %s; weights are F32, F16 or BF16, or in GGUF Q8_0 or Q4_0", path, want.Name, blob.Clip(string(t.DType)))
	case !blob.SameShape(t.Shape, want.Shape):
		return fault.Corrupt("%s: tensor %s has the shape %v, and its config asks for %v", path, want.Name, t.Shape, want.Shape)
	}
	return nil
}

// disjoint refuses parameters that share bytes: a file of a few bytes could
// otherwise stand for a model of any size, and training one would change another.
func disjoint(path string, tensors []blob.Tensor) error {
	sorted := slices.Clone(tensors)
	start := func(t blob.Tensor) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(t.Bytes))) }
	slices.SortFunc(sorted, func(a, b blob.Tensor) int { return cmp.Compare(start(a), start(b)) })
	for i := 1; i < len(sorted); i++ {
		a, b := sorted[i-1], sorted[i]
		if start(a)+uintptr(len(a.Bytes)) > start(b) && len(b.Bytes) > 0 {
			return fault.Corrupt("%s: tensors %s and %s lie in the same bytes; no GPT-2 shares them", path, blob.Clip(a.Name), blob.Clip(b.Name))
		}
	}
	return nil
}

// leftOver looks at the tensors that the config did not ask for. Masks are
// nothing; a further layer or matrix of the body means that the config is not
// this file's; other heads are ignored and noted.
func leftOver(path string, rest map[string]blob.Tensor) (notes []string, err error) {
	for _, name := range slices.Sorted(maps.Keys(rest)) {
		switch {
		case isMask(name):
		case strings.HasPrefix(name, bodyPrefix):
			return nil, fault.Corrupt("%s: holds the tensor %s, which config.json does not account for; they do not belong together", path, blob.Clip(name))
		default:
			notes = append(notes, fmt.Sprintf("%s: tensor %s is not GPT-2's and is ignored", path, blob.Clip(name)))
		}
	}
	return notes, nil
}

// writeTensors writes the parameters as a safetensors file. The tied head is
// not in it.
func writeTensors(w *manifest, name string, p *model.Params, d blob.DType) error {
	parts := make([]safetensors.Part, len(p.Tensors))
	for i, t := range p.Tensors {
		parts[i] = safetensors.Floats(t.Name, t.Shape, t.Data, d)
	}
	return w.writeParts(name, parts)
}
