package train

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"promptgen/internal/fault"
	"promptgen/model/checkpoint"
	"promptgen/train/report"
)

// placesFree refuses (2) folders that the run will replace as a whole and that
// hold something else than a model: those of the epochs behind the one given, the
// best and the final one; and a report's place that holds something else. It is asked before the work is done, since the refusal
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
	return report.MayReplace(filepath.Join(t.o.Out, report.Name))
}

// tellFormer names the models of a former run that lie where a run starts afresh:
// until it saves its own, or for good where it saves none, they pass for its. They
// may be all that is left of that run, so that they are told and not removed.
func (t *trainer) tellFormer() {
	var former []string
	entries, _ := os.ReadDir(t.o.Out) // what cannot be read is told by the first save
	for _, e := range entries {
		name := e.Name()
		var epoch int
		fmt.Sscanf(name, "model_epoch%d", &epoch)
		if e.IsDir() && (name == bestName || name == finalName || name == filepath.Base(EpochModel("", epoch))) {
			former = append(former, name)
		}
	}
	if len(former) > 0 {
		t.obs.Warning(fmt.Sprintf("%s holds models of a former run: %s; each stays until this run saves its own there: remove what you do not want, or give another --out",
			t.o.Out, strings.Join(former, ", ")))
	}
}

func sameFolder(a, b string) bool {
	to, err := os.Stat(a)
	if err != nil {
		return false
	}
	from, err := os.Stat(b)
	return err == nil && os.SameFile(to, from)
}
