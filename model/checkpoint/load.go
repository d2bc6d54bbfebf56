package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"promptgen/internal/atomicdir"
	"promptgen/internal/fault"
	"promptgen/internal/kernel"
	"promptgen/model"
	"promptgen/model/checkpoint/blob"
	"promptgen/tokenizer"
)

// The other files of a model folder.
const (
	configName        = "config.json"
	generationName    = "generation_config.json"
	vocabName         = "vocab.txt"
	tokenizerName     = "tokenizer.json"
	tokenizerConfName = "tokenizer_config.json"
	specialTokensName = "special_tokens_map.json"
	metaName          = "promptgen.json"
	userDictName      = "user_dict.txt"
)

// LoadOptions are what a folder may not say itself.
type LoadOptions struct {
	VocabPath string // "": the folder's own vocab.txt

	// KeepEncoded leaves matrices as they lie in their file where that is not the
	// float32 that we compute with: Params then has no data for those that
	// Model.Encoded knows.
	KeepEncoded bool

	// Of adapters: the model that they are added to ("": the one that they name),
	// and what computes the sums.
	Base   string
	Kernel kernel.Options
}

// Load reads a model folder, a GGUF file written by Export, or a folder of
// adapters, which it adds to their base: the model then is a whole one. What is
// not there is a fault of usage (2); what is there and damaged, of another kind, or
// does not belong together is fault.Corrupt (5).
func Load(path string, o LoadOptions) (*Model, error) {
	info, err := statModel(path)
	if err != nil {
		return nil, err
	}
	m := &Model{BOS: NoToken, EOS: NoToken, PAD: NoToken}
	switch {
	case info.IsDir() && isAdapter(path):
		err = m.loadAdapter(path, o)
	case info.IsDir():
		err = m.loadFolder(path, o)
	default:
		err = m.loadGGUF(path, o)
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	m.path = path
	return m, nil
}

// statModel finds the path, after undoing a replacement that a crash cut short.
func statModel(path string) (fs.FileInfo, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := atomicdir.Recover(path); err != nil {
			return nil, err
		}
		info, err = os.Stat(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Usage("%s: there is no such model folder; check the path, or train one first", path)
	}
	if err == nil && info.IsDir() {
		// A folder that may not be entered would seem to hold nothing.
		_, err = os.Stat(path + string(filepath.Separator) + ".")
	}
	if err != nil {
		return nil, blob.OpenError(path, err)
	}
	return info, nil
}

// ShapeOf is the config of the model at a path, whatever Load takes; of adapters,
// that of their base.
func ShapeOf(path string) (c model.Config, err error) {
	info, err := statModel(path)
	switch {
	case err != nil:
		return c, err
	case !info.IsDir():
		g, f, err := openGGUF(path)
		if err != nil {
			return c, err
		}
		defer f.Close()
		return ggufConfig(path, g)
	case isAdapter(path):
		var a adapterConfig
		if err := readJSON(filepath.Join(path, adapterConfigName), &a); err != nil {
			return c, err
		}
		base, err := findBase(path, a.Base)
		if err != nil {
			return c, err
		}
		return ShapeOf(base)
	}
	_, c, err = readConfig(path)
	return c, err
}

// readConfig reads a folder's config.json.
func readConfig(dir string) (h hfConfig, c model.Config, err error) {
	path := filepath.Join(dir, configName)
	if !exists(path) {
		return h, c, fault.Corrupt("%s: has no %s; it is no model folder%s", dir, configName, hint(dir))
	}
	if err := readJSON(path, &h); err != nil {
		return h, c, err
	}
	c, err = h.shape(path)
	return h, c, err
}

func (m *Model) loadFolder(dir string, o LoadOptions) error {
	h, c, err := readConfig(dir)
	if err != nil {
		return err
	}
	if m.Meta, err = readMeta(dir); err != nil {
		return err
	}
	if err := m.loadVocab(dir, c.VocabSize, &h, o); err != nil {
		return err
	}
	if err := m.loadSpecials(dir, c.VocabSize, &h); err != nil {
		return err
	}
	w, err := openWeights(dir)
	if err != nil {
		return err
	}
	m.files = w.files
	m.DType, m.stored = weightType(w.tensors), map[string]blob.DType{}
	for _, t := range w.tensors {
		m.stored[canonical(t.Name)] = t.DType
	}
	p, kept, notes, err := assemble(w.path, c, h.Tied, w.tensors, o.KeepEncoded)
	m.Params, m.encoded, m.Notes = p, kept, append(m.Notes, notes...)
	return err
}

// readMeta reads the folder's promptgen.json, if it has one.
func readMeta(dir string) (meta Meta, err error) {
	path := filepath.Join(dir, metaName)
	if !exists(path) {
		return meta, nil
	}
	if err := readJSON(path, &meta); err != nil {
		return meta, err
	}
	return meta, meta.check(path)
}

// check refuses what a newer program wrote, or none.
func (m *Meta) check(path string) error {
	switch m.Level {
	case "", tokenizer.LevelWord, tokenizer.LevelChar, tokenizer.LevelBERT:
	default:
		return fault.Corrupt("%s: its level %q is not known; it is damaged", path, blob.Clip(string(m.Level)))
	}
	if m.Format > formatVersion {
		return tooNew(path, m.Format)
	}
	return nil
}

// errNewer says that what cannot be read is not damaged.
var errNewer = errors.New("use a newer one")

func tooNew(path string, format int) error {
	return fault.Corrupt("%s: is of format %d, and this program reads up to %d; %w", path, format, formatVersion, errNewer)
}

// hint points from a training's output folder to the model in it.
func hint(dir string) string {
	final := filepath.Join(dir, "final_model")
	if exists(filepath.Join(final, configName)) || isAdapter(final) {
		return fmt.Sprintf("; %s is one", final)
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// weightType is the type of the largest tensor, by the commands' name.
func weightType(tensors []blob.Tensor) string {
	var largest blob.Tensor
	for _, t := range tensors {
		if t.DType.IsWeight() && len(t.Bytes) > len(largest.Bytes) {
			largest = t
		}
	}
	return largest.DType.Name()
}

// loadVocab reads the vocabulary and what tells how it is used, and checks that
// it is the model's.
func (m *Model) loadVocab(dir string, size int, h *hfConfig, o LoadOptions) error {
	path := o.VocabPath
	if path == "" {
		path = filepath.Join(dir, vocabName)
		if _, ours := m.Meta.Files[vocabName]; !exists(path) && ours {
			return fault.Corrupt("%s: is missing %s; the folder is not whole: copy it again, or name its vocabulary with --vocab FILE", dir, vocabName)
		}
		if !exists(path) {
			return nil
		}
		if err := checkPart(path); err != nil {
			return err
		}
	}
	v, err := tokenizer.ReadVocab(path)
	if err != nil {
		return err
	}
	if v.Len() != size {
		return fault.Corrupt("%s: has %d tokens, and the model in %s has %d; it is not this model's vocabulary", path, v.Len(), dir, size)
	}
	if m.Meta.VocabHash != "" && v.Hash() != m.Meta.VocabHash {
		return fault.Corrupt("%s: is not the vocabulary that the model in %s was trained with (other words or another order)", path, dir)
	}
	m.Vocab = v
	for _, note := range v.Notes() {
		m.Notes = append(m.Notes, path+": "+note)
	}
	if m.Meta.Format == 0 { // made by others
		m.Meta.Level = tokenizer.LevelBERT
		m.Meta.LowerCase = lowerCase(dir, v)
	}
	return m.loadUserDict(dir)
}

// lowerCase is what tokenizer_config.json says, else what the vocabulary's
// letters say.
func lowerCase(dir string, v *tokenizer.Vocab) bool {
	var c struct {
		DoLowerCase *bool `json:"do_lower_case"`
	}
	if readJSON(filepath.Join(dir, tokenizerConfName), &c) == nil && c.DoLowerCase != nil {
		return *c.DoLowerCase
	}
	return v.LowerCaseByDefault()
}

func (m *Model) loadUserDict(dir string) error {
	name := m.Meta.UserDict
	if name == "" {
		return nil
	}
	if filepath.Base(name) != name || !filepath.IsLocal(name) {
		return fault.Corrupt("%s: names the user dictionary %s, which is not in the folder", filepath.Join(dir, metaName), blob.Clip(name))
	}
	f, err := openPart(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	m.files = append(m.files, f)
	m.UserDict, m.userDictPath = f.Bytes, f.Path
	return nil
}

// loadSpecials finds the tokens that begin and end a text: as promptgen.json
// names them, else by the ids of generation_config.json and config.json; BERT's
// own where only the tokenizer's class is known.
func (m *Model) loadSpecials(dir string, size int, h *hfConfig) error {
	if m.Meta.Format > 0 && m.Vocab != nil {
		m.BOS, m.EOS, m.PAD = tokenID(m.Vocab, m.Meta.BOS), tokenID(m.Vocab, m.Meta.EOS), tokenID(m.Vocab, m.Meta.PAD)
		for _, token := range []string{m.Meta.BOS, m.Meta.EOS, m.Meta.PAD} {
			if token != "" && tokenID(m.Vocab, token) == NoToken {
				return fault.Corrupt("%s: names the token %q, which its vocabulary does not have; it is damaged", filepath.Join(dir, metaName), blob.Clip(token))
			}
		}
		return nil
	}
	var g struct {
		BOS tokenIDs `json:"bos_token_id"`
		EOS tokenIDs `json:"eos_token_id"`
		PAD tokenIDs `json:"pad_token_id"`
	}
	if path := filepath.Join(dir, generationName); exists(path) {
		if err := readJSON(path, &g); err != nil {
			return err
		}
	}
	first := func(lists ...tokenIDs) int32 {
		for _, l := range lists {
			if id := l.first(size); id != NoToken {
				return id
			}
		}
		return NoToken
	}
	m.BOS, m.EOS, m.PAD = first(g.BOS, h.BOS), first(g.EOS, h.EOS), first(g.PAD, h.PAD)
	if m.BOS == NoToken && m.EOS == NoToken && m.Vocab != nil && isBERT(h.TokenizerClass) {
		m.BOS, m.EOS = tokenID(m.Vocab, tokenizer.CLS), tokenID(m.Vocab, tokenizer.SEP)
	}
	if m.PAD == NoToken {
		m.PAD = tokenID(m.Vocab, tokenizer.PAD)
	}
	return nil
}

func isBERT(class string) bool { return class == "BertTokenizer" || class == "BertTokenizerFast" }
