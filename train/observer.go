package train

// Observer is told what happens during a run. Its methods are called one at a
// time, from the goroutine that trains, and should be quick.
type Observer interface {
	// Step is called after every optimizer step.
	Step(StepInfo)
	// Validation is called after every validation.
	Validation(ValidationInfo)
	// Sample is called with what the model made of a prompt at a validation.
	Sample(SampleInfo)
	// Saved is called when a model folder is complete and can be used.
	Saved(dir string)
	// Notice is a line worth the user's attention.
	Notice(string)
	// Warning is a line about what is damaged, or may be taken for what it is not.
	Warning(string)
}

// StepInfo describes one optimizer step.
type StepInfo struct {
	Step, Steps   int     // from 1; of the whole run
	Epoch, Epochs int     // likewise
	Loss          float64 // nats a token, mean over the step's targets
	LR            float64
	GradNorm      float64 // before clipping
	Tokens        int64   // seen since the start of the training
	TokensPerSec  float64 // of late
	PeakRSS       int64   // of the process so far
	Skipped       bool    // loss or gradient not finite: no update was made
}

// ValidationInfo describes one validation.
type ValidationInfo struct {
	Step, Epoch int
	EvalResult
	Best bool // the lowest loss so far
}

// SampleInfo is what the model made of a prompt.
type SampleInfo struct {
	Step, Epoch  int
	Prompt, Text string // Text begins with Prompt
}

// Result describes a finished run; its JSON is that of `train --json`.
type Result struct {
	Steps        int      `json:"steps"`
	Tokens       int64    `json:"tokens"`
	FinalLoss    float64  `json:"final_loss"` // mean over the last 32 steps
	ValLoss      *float64 `json:"val_loss"`   // nil without validation data
	TokensPerSec float64  `json:"tokens_per_s"`
	Planned      int64    `json:"planned_peak_bytes"` // by model/plan, before the first step
	PeakRSS      int64    `json:"peak_rss_bytes"`
	Model        string   `json:"model"` // folder of the final model
	Skipped      int      `json:"skipped_steps,omitempty"`

	BestValLoss *float64 `json:"best_val_loss,omitempty"`
	BestModel   string   `json:"best_model,omitempty"` // folder; empty without validation data
	Stopped     bool     `json:"stopped_early,omitempty"`

	Elsewhere bool `json:"-"` // another rank of the job has the same result and shows it
}

// Silent is an Observer that ignores everything.
type Silent struct{}

// Step implements Observer.
func (Silent) Step(StepInfo) {}

// Validation implements Observer.
func (Silent) Validation(ValidationInfo) {}

// Sample implements Observer.
func (Silent) Sample(SampleInfo) {}

// Saved implements Observer.
func (Silent) Saved(string) {}

// Notice implements Observer.
func (Silent) Notice(string) {}

// Warning implements Observer.
func (Silent) Warning(string) {}
