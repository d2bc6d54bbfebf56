// Package checkpoint reads and writes models on disk: folders in the Hugging
// Face layout, GGUF files, and the state that a training needs to go on.
//
// A model folder is config.json (the shape), the weights, the vocabulary with
// its tokenizer files, and promptgen.json with what only this program knows.
// Load takes folders that others made as well: safetensors, whole or sharded,
// and both formats of pytorch_model.bin. Save writes one that others can read,
// whole or not at all.
//
//	m, err := checkpoint.Load("model/final_model", checkpoint.LoadOptions{})
//	tok, err := m.Tokenizer()
//	err = checkpoint.Save(ctx, "copy", m)
//
// The bytes of each format are read by a package of its own (safetensors,
// torchfile, gguf), which checks every length against the file before it
// believes it; all of them hand over blob.Tensors, views of one mapped file.
// Here those are put together: names and shapes are compared with the config,
// before anything is allocated, and weights that are float32 in the file stay
// where they lie.
package checkpoint

import (
	"encoding/json"
	"errors"
	"os"

	"promptgen/internal/fault"
	"promptgen/model"
	"promptgen/model/checkpoint/blob"
	"promptgen/tokenizer"
)

// formatVersion is the newest format of promptgen.json and of training states
// that this program knows.
const formatVersion = 1

// NoToken stands for a begin, end or padding token that a model does not have.
const NoToken int32 = -1

// Model is a model with what belongs to it.
type Model struct {
	Params *model.Params
	Vocab  *tokenizer.Vocab // nil where the folder has none and none was given
	Meta   Meta

	// The tokens that begin a text, end it, and fill up; NoToken where unknown.
	BOS, EOS, PAD int32

	UserDict []byte   // the user dictionary of the word level, as its file was
	Notes    []string // what was noticed while reading, for the log
	DType    string   // the weights' type in the file: fp32, fp16, …; "" when not read

	// Base is the model that adapters belong to: those of Params, which alone are
	// saved, or those that were added to Params by Load (LoRA describes them).
	Base *Base
	LoRA model.LoRA

	path         string // where the model was read; "" for one made here
	userDictPath string // where UserDict lies, if it was read
	files        []*blob.File
	encoded      map[string]Encoded    // by our names, with LoadOptions.KeepEncoded
	stored       map[string]blob.DType // of the file's tensors, by our names
}

// Meta is promptgen.json: what the Hugging Face files have no place for.
type Meta struct {
	Format    int             `json:"format"`
	Level     tokenizer.Level `json:"level"`
	LowerCase bool            `json:"lower_case"`
	Compat    bool            `json:"compat_book,omitempty"` // tokenized as the original does (tokenizer.Options.Compat)
	VocabHash string          `json:"vocab_hash,omitempty"`
	UserDict  string          `json:"user_dict,omitempty"` // file beside promptgen.json
	BOS       string          `json:"bos_token,omitempty"`
	EOS       string          `json:"eos_token,omitempty"`
	PAD       string          `json:"pad_token,omitempty"`
	Note      string          `json:"note,omitempty"`
	Base      *Base           `json:"base,omitempty"` // of adapters
	Training  *Training       `json:"training,omitempty"`

	// Files are the other files' sums: promptgen.json is written last.
	Files map[string]fileSum `json:"files,omitempty"`
}

// Training is the summary of the training that made a model.
type Training struct {
	Steps     int64   `json:"steps"`                // optimizer steps
	Epochs    int     `json:"epochs"`               // epochs done
	Tokens    int64   `json:"tokens,omitempty"`     // tokens seen
	FinalLoss float64 `json:"final_loss,omitempty"` // nats a token, training data
	ValLoss   float64 `json:"val_loss,omitempty"`   // nats a token, held out; 0: none
	Seed      uint64  `json:"seed"`
	DType     string  `json:"dtype,omitempty"`     // of the computation
	DataHash  string  `json:"data_hash,omitempty"` // of the token shards

	Run json.RawMessage `json:"run,omitempty"` // the training's run.json: all that repeats it
}

// New makes a Model of weights trained here: texts begin with [MASK] and end
// with [CLS], as data's documents are framed.
func New(p *model.Params, v *tokenizer.Vocab, level tokenizer.Level, lowerCase bool) *Model {
	m := &Model{Params: p, Vocab: v, BOS: NoToken, EOS: NoToken, PAD: NoToken}
	m.Meta = Meta{Level: level, LowerCase: lowerCase}
	if v != nil {
		m.BOS, m.EOS, m.PAD = tokenID(v, tokenizer.MASK), tokenID(v, tokenizer.CLS), tokenID(v, tokenizer.PAD)
	}
	return m
}

// Tokenizer makes the tokenizer that the model was trained with.
func (m *Model) Tokenizer() (*tokenizer.Tokenizer, error) {
	if m.Vocab == nil {
		return nil, fault.Usage("the model has no vocabulary of its own; name its file with --vocab")
	}
	o := tokenizer.Options{Level: m.Meta.Level, LowerCase: m.Meta.LowerCase, Compat: m.Meta.Compat, UserDict: m.userDictPath}
	if len(m.UserDict) > 0 && o.UserDict == "" { // it came with no file of its own
		path, err := tempFile(m.UserDict)
		if err != nil {
			return nil, err
		}
		defer os.Remove(path)
		o.UserDict = path
	}
	return tokenizer.New(m.Vocab, o)
}

// tempFile is a file with the given contents, the caller's to remove.
func tempFile(b []byte) (path string, err error) {
	f, err := os.CreateTemp("", "promptgen-user-dict-*.txt")
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	return f.Name(), errors.Join(err, f.Close())
}

// Encoded is a matrix that was left as it lies in its file.
type Encoded struct {
	blob.Tensor
	ByOutput bool // [out, in], the embedding [vocab, n_embd]; else [in, out]
}

// Encoded is such a matrix by its name in Config.Tensors.
func (m *Model) Encoded(name string) (Encoded, bool) {
	t, ok := m.encoded[name]
	return t, ok
}

// LetGo tells the system that a tensor's memory will not be needed soon: where it
// is a view of a mapped file its pages are dropped, and read again should
// anything ask for them. What was changed in them (weights that adapters were
// added to) is lost: only what is needed no more may be let go.
func (m *Model) LetGo(data []byte) {
	for _, f := range m.files {
		f.LetGo(data)
	}
}

// Close gives mapped weights back; Params must not be used from then on. A
// model that serves until the process ends need not be closed.
func (m *Model) Close() error {
	var errs []error
	for _, f := range m.files {
		errs = append(errs, f.Close())
	}
	m.files = nil
	return errors.Join(errs...)
}

// tokenID is the id of a token, NoToken where the vocabulary does not have it.
func tokenID(v *tokenizer.Vocab, token string) int32 {
	if v == nil || token == "" {
		return NoToken
	}
	if id, ok := v.ID(token); ok {
		return id
	}
	return NoToken
}

// tokenName is the other way round: "" for NoToken.
func tokenName(v *tokenizer.Vocab, id int32) string {
	if v == nil || id < 0 || int(id) >= v.Len() {
		return ""
	}
	return v.Token(id)
}
