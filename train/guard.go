package train

import (
	"fmt"
	"math"
	"slices"

	"promptgen/internal/fault"
	"promptgen/model"
)

// The guards of a run: a step that is not finite is skipped, three in a row end
// the run, and so does a loss that has left for good; a spike is told.

const (
	// badStepsLimit is how many steps in a row may be skipped for a loss or a
	// gradient that is not a number before the run is given up.
	badStepsLimit = 3

	// A loss is a spike if it lies so many deviations, and at least so many nats,
	// above the mean of the last steps, of which there must be enough to know.
	spikeDeviations = 6
	spikeNats       = 0.25
	spikeSteps      = 16

	// A run has diverged when each of so many losses in a row is more than so many
	// times the loss that it began with, and that of guessing.
	divergedSteps  = 8
	divergedFactor = 2
)

// guard looks at a step that was taken or skipped: it tells what is strange and
// ends a run that only spoils the model.
func (t *trainer) guard(info StepInfo) error {
	if info.Skipped {
		return t.guardSkipped(info)
	}
	if t.at.First == 0 {
		t.at.First = info.Loss
	}
	if mean, isSpike := spike(t.at.Losses); isSpike && info.Step-t.spikeAt >= finalLossSteps {
		t.spikeAt = info.Step
		t.obs.Notice(fmt.Sprintf("step %d: the loss jumped to %.4g from about %.4g; if it does not come back, lower --lr or --max-grad-norm, or look at the data there",
			info.Step, info.Loss, mean))
	}
	return t.guardDiverged(divergedSteps)
}

func (t *trainer) guardSkipped(info StepInfo) error {
	first := t.firstBadTensor()
	t.obs.Notice(fmt.Sprintf("step %d skipped: loss %v, gradient norm %v (first in %s)", info.Step, info.Loss, info.GradNorm, first))
	if t.bad < badStepsLimit {
		return nil
	}
	return fault.With(fault.CodeFailed, fmt.Errorf("step %d: %d steps in a row had a loss or gradient that is not finite, first in %s; lower --lr; %s",
		info.Step, t.bad, first, t.lastGood()))
}

// guardDiverged ends a run whose last n losses all are far above the first one.
func (t *trainer) guardDiverged(n int) error {
	guessing := math.Log(float64(t.cfg.VocabSize))
	limit := divergedFactor * max(t.at.First, guessing)
	if len(t.at.Losses) < n || n == 0 || slices.Min(t.at.Losses[len(t.at.Losses)-n:]) <= limit {
		return nil
	}
	return fault.With(fault.CodeFailed, fmt.Errorf("step %d: the training has diverged: the loss is %.4g, it began at %.4g, and guessing has %.4g; lower --lr (%g); %s",
		t.at.Step, t.at.Losses[len(t.at.Losses)-1], t.at.First, guessing, t.o.LR, t.lastGood()))
}

// guardSave keeps a broken model from being saved as if it were whole.
func (t *trainer) guardSave() error {
	if err := t.guardDiverged(min(2, len(t.at.Losses))); err != nil {
		return t.group.Together(err)
	}
	if name := t.firstBadWeight(); name != "" {
		return t.group.Together(fault.With(fault.CodeFailed, fmt.Errorf("step %d: the weights of %s are not finite, the model is not saved; lower --lr (%g); %s",
			t.at.Step, name, t.o.LR, t.lastGood())))
	}
	return nil
}

// guardValidation ends a run whose validation loss is not finite: without
// dropout and over many windows it is no matter of one batch, as a step's may be.
func (t *trainer) guardValidation(loss float64) error {
	if model.IsFinite(loss) {
		return nil
	}
	first := ""
	if name := t.firstBadWeight(); name != "" {
		first = ", first in the weights of " + name
	} else if name := t.graph.FirstNotFinite(); name != "" {
		first = ", first in the output of " + name
	}
	return t.group.Together(fault.With(fault.CodeFailed, fmt.Errorf("step %d: the validation loss is %v%s; lower --lr (%g); %s",
		t.at.Step, loss, first, t.o.LR, t.lastGood())))
}

// lastGood says where the run could go on from.
func (t *trainer) lastGood() string {
	if t.lastSave == "" {
		return "nothing was saved yet"
	}
	return "last good checkpoint: " + t.lastSave
}

// spike says whether the last of losses stands out, and the mean of the others.
func spike(losses []float64) (mean float64, isSpike bool) {
	n := len(losses) - 1
	if n < spikeSteps {
		return 0, false
	}
	var sum, squares float64
	for _, l := range losses[:n] {
		sum += l
		squares += l * l
	}
	mean = sum / float64(n)
	deviation := math.Sqrt(max(0, squares/float64(n)-mean*mean))
	return mean, losses[n]-mean > max(spikeDeviations*deviation, spikeNats)
}

// firstBadTensor names what was not finite first: a weight, else a value of the
// forward pass in its order, else a gradient in the order of the backward pass.
func (t *trainer) firstBadTensor() string {
	if name := t.firstBadWeight(); name != "" {
		return "the weights of " + name
	}
	if name := t.graph.FirstNotFinite(); name != "" {
		return "the output of " + name
	}
	for _, tensor := range slices.Backward(t.graph.Grads().Tensors) {
		if !model.IsFinite(t.cpu.SumSquares(tensor.Data)) {
			return "the gradient of " + tensor.Name
		}
	}
	return "the loss"
}

// firstBadWeight names the first weight that is not finite, "" without one.
func (t *trainer) firstBadWeight() string {
	for _, tensor := range t.params.Tensors {
		if !model.IsFinite(t.cpu.SumSquares(tensor.Data)) {
			return tensor.Name
		}
	}
	return ""
}
