package runlog

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"promptgen/internal/atomicdir"
	"promptgen/internal/fault"
	"promptgen/internal/host"
)

// formatVersion is the newest run.json that this program knows.
const formatVersion = 1

// Run is run.json: what a training is and what repeats it. Nothing in it but
// Host depends on when or where the training ran.
type Run struct {
	Format  int             `json:"format"`
	Command string          `json:"command,omitempty"` // as typed
	Options json.RawMessage `json:"options"`           // train.Options, config included
	Changed string          `json:"changed,omitempty"` // on the way, by going on with other options: what one run cannot repeat
	Plan    Plan            `json:"plan"`
	Data    DataFacts       `json:"data"`
	Program host.Program    `json:"program"`
	Host    host.Machine    `json:"machine"`
}

// Plan is what a run amounts to.
type Plan struct {
	Parameters int64  `json:"parameters"`
	Trained    int64  `json:"trained_parameters"`
	Windows    int    `json:"windows"` // in an epoch
	PerStep    int    `json:"sequences_per_step"`
	MicroBatch int    `json:"sequences_at_once"`
	Steps      int    `json:"steps"`
	StepsEpoch int    `json:"steps_per_epoch"`
	Warmup     int    `json:"warmup_steps"`
	Recompute  string `json:"recompute,omitempty"` // sublayers or layers; empty: off
	Recomputed int    `json:"recompute_layers,omitempty"`
	Moments    string `json:"optimizer_state,omitempty"` // format of AdamW's moments; empty: fp32
	Bytes      int64  `json:"planned_bytes"`             // sum of Parts
	Parts      []Part `json:"parts"`
}

// Part is a share of the memory planned.
type Part struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

// DataFacts is what the data is like.
type DataFacts struct {
	Folder          string  `json:"folder"`
	Hash            string  `json:"hash"`
	VocabHash       string  `json:"vocab_hash"`
	VocabSize       int     `json:"vocab_size"`
	Level           string  `json:"level"`
	Documents       int64   `json:"documents"`
	Tokens          int64   `json:"tokens"`
	UnkShare        float64 `json:"unk_share"`
	ValDocuments    int64   `json:"val_documents"`
	ValTokens       int64   `json:"val_tokens"`
	ValUnkShare     float64 `json:"val_unk_share"`
	SharedDocuments int64   `json:"shared_documents"` // held out, and trained on as well
}

// WriteRun writes run.json into a run's folder.
func WriteRun(ctx context.Context, out string, r *Run) error {
	b, err := r.Encode()
	if err != nil {
		return err
	}
	return atomicdir.WriteFile(ctx, filepath.Join(out, RunName), func(w io.Writer) error {
		_, err := w.Write(append(b, '\n'))
		return err
	})
}

// Encode is the text of run.json.
func (r *Run) Encode() ([]byte, error) {
	r.Format = formatVersion
	return json.MarshalIndent(r, "", "  ")
}

// ReadRun reads run.json from a run's folder.
func ReadRun(out string) (*Run, error) {
	path := filepath.Join(out, RunName)
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.Usage("%s: holds no %s; name the output folder of a training", out, RunName)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 16<<20))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return DecodeRun(path, b)
}

// DecodeRun reads the text of a run.json; name stands for it in errors.
func DecodeRun(name string, b []byte) (*Run, error) {
	var r Run
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fault.Corrupt("%s: does not say what a training was (%v)", name, err)
	}
	if r.Format < 1 || r.Format > formatVersion {
		return nil, fault.Corrupt("%s: of format %d, and this program reads up to %d", name, r.Format, formatVersion)
	}
	return &r, nil
}
