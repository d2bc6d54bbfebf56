package train

import (
	"os"

	"promptgen/internal/fault"
	"promptgen/model/checkpoint"
)

// placesFree refuses (2) folders that the run will replace as a whole and that
// hold something else than a model: those of the epochs behind the one given, the
// best and the final one. It is asked before the work is done, since the refusal
// of a save would come hours later.
func (t *trainer) placesFree(after int) error {
	dirs := []string{FinalModel(t.o.Out), BestModel(t.o.Out)}
	for e := after + 1; e <= t.o.Epochs; e++ {
		dirs = append(dirs, EpochModel(t.o.Out, e))
	}
	for _, dir := range dirs {
		if err := checkpoint.MayReplace(dir); err != nil {
			return err
		}
		// Adapters in their base's place would belong to nothing.
		if t.o.LoRA.On() && sameFolder(dir, t.o.InitFrom) {
			return fault.Usage("%s: is the model that the adapters are trained on (--init-from), and they would replace it; choose another --out", dir)
		}
	}
	return nil
}

func sameFolder(a, b string) bool {
	to, err := os.Stat(a)
	if err != nil {
		return false
	}
	from, err := os.Stat(b)
	return err == nil && os.SameFile(to, from)
}
