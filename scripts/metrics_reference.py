"""Times of `pycocoevalcap` on the captions of `vlp bench metrics`, for its `--reference`.

    python3 scripts/metrics_reference.py captions_val2014.json --json timings.json     # needs: pip install pycocoevalcap==1.2, Java
    vlp bench metrics --captions captions_val2014.json --reference timings.json

Medians after one repetition that does not count. The captions are chosen as src/cli/bench/metrics.rs does. --no-meteor leaves METEOR out.
"""
import argparse, contextlib, io, json, statistics, time

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

COUNT = 5000

parser = argparse.ArgumentParser()
parser.add_argument("captions")
parser.add_argument("--reps", type=int, default=5)
parser.add_argument("--no-meteor", action="store_true")
parser.add_argument("--json", required=True)
args = parser.parse_args()

file = json.load(open(args.captions, encoding="utf-8"))
by_image = {image["id"]: [] for image in file.get("images", [])}
for annotation in file["annotations"]:
    by_image.setdefault(annotation["image_id"], []).append(annotation["caption"])
captions = [found for found in by_image.values() if found]
references, candidates = {}, {}
for at in range(COUNT):
    turn, own = divmod(at, len(captions))
    references[at] = [{"caption": caption} for caption in captions[own]]
    candidates[at] = [{"caption": captions[(own + turn + 1) % len(captions)][0]}]

times = {}


def timed(work, run):
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        result = run()
    times.setdefault(work, []).append(time.perf_counter() - started)
    return result


for _ in range(args.reps + 1):
    tokenizer = PTBTokenizer()
    gts, res = timed("tokenizer", lambda: (tokenizer.tokenize(references), tokenizer.tokenize(candidates)))
    scorers = [Bleu(4), Rouge(), Cider()]
    timed("BLEU, ROUGE-L, CIDEr", lambda: [scorer.compute_score(gts, res) for scorer in scorers])
    if not args.no_meteor:
        timed("METEOR of tokens", lambda: Meteor().compute_score(gts, res))

name = f"caption metrics, {COUNT} images, {sum(map(len, references.values()))} references: "
result = {name + work: round(statistics.median(seconds[1:]), 4) for work, seconds in times.items()}
json.dump(result, open(args.json, "w"), indent=1)
print(json.dumps(result, indent=1))
