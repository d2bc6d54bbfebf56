package train

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"promptgen/internal/fault"
	"promptgen/model/checkpoint"
	"promptgen/train/report"
)

// epochsIn are the epochs, in order, whose models' names lie in a run's folder. A
// run of ever so many epochs has few of them: the folder is asked, not each name.
func epochsIn(out string) []int {
	entries, _ := os.ReadDir(out) // what cannot be read is told by the first save
	var epochs []int
	for _, e := range entries {
		var epoch int
		fmt.Sscanf(e.Name(), "model_epoch%d", &epoch)
		if epoch > 0 && e.Name() == filepath.Base(EpochModel("", epoch)) {
			epochs = append(epochs, epoch)
		}
	}
	slices.Sort(epochs)
	return epochs
}

// placesFree refuses (2) folders that the run will replace as a whole and that
// hold something else than a model: those of the epochs behind the one given, the
// best and the final one; and a report's place that holds something else. It is
// asked before the work is done, since the refusal of a save would come hours
// later.
func (t *trainer) placesFree(after int) error {
	dirs := []string{FinalModel(t.o.Out), BestModel(t.o.Out)}
	for _, e := range epochsIn(t.o.Out) {
		if e > after && e <= t.o.Epochs {
			dirs = append(dirs, EpochModel(t.o.Out, e))
		}
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
	dirs := []string{BestModel(t.o.Out), FinalModel(t.o.Out)}
	for _, e := range epochsIn(t.o.Out) {
		dirs = append(dirs, EpochModel(t.o.Out, e))
	}
	var former []string
	for _, dir := range dirs {
		if info, err := os.Lstat(dir); err == nil && info.IsDir() {
			former = append(former, filepath.Base(dir))
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
