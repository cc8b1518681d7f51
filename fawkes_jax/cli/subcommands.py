"""The subcommands: what each is for, and the options that it has."""

import dataclasses

from fawkes_jax import options
from fawkes_jax.options import declared


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
  """A subcommand; `fawkes_jax.commands.NAME.run` takes its options.

  Attributes:
    name: as it is typed.
    help: what it does, in the list of all subcommands.
    description: above its flags.
    options: its options; None where it has actions.
    actions: its own subcommands, such as `weights list`.
    places: whether its folders need no flags, as in `fawkes-jax cloak IN OUT`.
    goes_on: whether it keeps what it has done when it is interrupted.
  """

  name: str
  help: str
  description: str
  options: type[declared.Options] | None = None
  actions: tuple["Command", ...] = ()
  places: bool = False
  goes_on: bool = False

  @property
  def needs_input(self) -> bool:
    """Whether it has nothing to do without an input."""
    return self.options is not None and any(
      field.name == "input" and field.default is dataclasses.MISSING
      for field in dataclasses.fields(self.options)
    )


COMMANDS = (
  Command(
    name="cloak",
    help="cloak every face in a folder of photos",
    description="Writes the same tree of photos with every face cloaked, and"
    " OUTPUT/manifest.jsonl with a row for each file. Run again, it continues"
    " where it stopped.",
    options=options.CloakOptions,
    places=True,
    goes_on=True,
  ),
  Command(
    name="demo",
    help="cloak a photo that comes with the package",
    description="Cloaks the portrait of an astronaut, and measures how much it"
    " still looks like her. Opens nothing: it prints where to look.",
    options=options.DemoOptions,
  ),
  Command(
    name="status",
    help="report the progress of cloak",
    description="Counts the outcomes in OUTPUT/manifest.jsonl and reports how"
    " many photos are done per second, and with --input also how many are left."
    " Works while `cloak` is running, and writes nothing.",
    options=options.StatusOptions,
    places=True,
  ),
  Command(
    name="verify",
    help="check that the results of cloak are complete",
    description="Reads every result again and compares it with"
    " OUTPUT/manifest.jsonl; with --input also whether every photo has an"
    " outcome and is what it was. Names each file that is missing or altered;"
    " the exit code is 1 if there is one. Writes nothing.",
    options=options.VerifyOptions,
    places=True,
  ),
  Command(
    name="index",
    help="look an archive through for people, and cloak nothing",
    description="Finds and embeds the faces of all photos, finds out who is"
    " who, and keeps that in OUTPUT/.manifest/index, so that `cloak` with the"
    " same input and output need not look again, in any mode. What it keeps is"
    " biometric data; `forget` removes it. Run again, it continues where it"
    " stopped.",
    options=options.IndexOptions,
    places=True,
    goes_on=True,
  ),
  Command(
    name="people",
    help="list the people of an archive, and give them names",
    description="Lists the people that `index`, or `cloak --keep_index`, has"
    " found, with how many photos there are of each and what became of them,"
    " and whose protection is at risk. --sheet writes a page with faces of"
    " each. --name gives them names, which --protect and --spare of `cloak`"
    " take; they stay with the person's photos in OUTPUT/.manifest/people.",
    options=options.PeopleOptions,
    places=True,
  ),
  Command(
    name="forget",
    help="remove what is known of people's faces",
    description="Removes the embeddings of faces and all that was made of them"
    " from OUTPUT/.manifest/index, and the names of people. Results and the"
    " manifest stay.",
    options=options.ForgetOptions,
  ),
  Command(
    name="report",
    help="make a page that shows the results of cloak",
    description="Writes OUTPUT/report.html, one file that loads nothing: what"
    " became of the photos, how fast, how well faces are protected and how much"
    " they were changed, with pictures of some. --input shows faces also as"
    " they were before. Do not publish it with the cloaked photos.",
    options=options.ReportOptions,
    places=True,
  ),
  Command(
    name="bank",
    help="compute a bank of target identities",
    description="Computes the mean embedding of each identity of a folder with"
    " one sub-folder of photos for each.",
    options=options.BankOptions,
  ),
  Command(
    name="train",
    help="train a small recogniser of your own",
    description="Teaches a small network the embeddings of other recognisers,"
    " identities, or both, and writes its weights and a model card to OUTPUT."
    " Run again, it continues where it stopped.",
    options=options.TrainOptions,
    goes_on=True,
  ),
  Command(
    name="train_detector",
    help="train a detector of faces of one's own",
    description="Teaches a small network to find faces and their landmarks in"
    " annotated photos, and writes its weights and a model card to OUTPUT. Run"
    " again, it continues where it stopped. Needs YuNet: `fawkes-jax weights"
    " fetch yunet`.",
    options=options.TrainDetectorOptions,
    goes_on=True,
  ),
  Command(
    name="evaluate",
    help="measure how well cloaks protect",
    description="Cloaks photos of some of the people of a folder, lets trackers"
    " in their own runtimes train on them, and writes to OUTPUT how often they"
    " know these people in clean photos, and more. Run again, it continues"
    " where it stopped. Needs `pip install 'fawkes-jax[evaluate]'`.",
    options=options.EvaluateOptions,
    goes_on=True,
  ),
  Command(
    name="benchmark",
    help="measure the speed of this machine",
    description="Measures the solver, the detector, the codecs and the whole"
    " pipeline on this machine, in rounds in which each has its turn, and"
    " writes the tables to OUTPUT.",
    options=options.BenchmarkOptions,
  ),
  Command(
    name="weights",
    help="list, fetch or import more recognisers to cloak against",
    description="Adds recognisers that --surrogates can name.",
    actions=(
      Command(
        name="list",
        help="show the recognisers that are known, and which are installed",
        description="Shows the recognisers that come with the package, those"
        " that you can add, and those that you have added.",
        options=options.WeightsListOptions,
      ),
      Command(
        name="fetch",
        help="download public recognisers",
        description="Downloads public recognisers into the cache directory. Run"
        " again, it continues where it stopped.",
        options=options.WeightsFetchOptions,
        goes_on=True,
      ),
      Command(
        name="import",
        help="add a recogniser from a file of your own",
        description="Tests a recogniser and copies it into the cache directory:"
        " ONNX, safetensors of InsightFace's iresnet or vit, AdaFace,"
        " facenet-pytorch or a student, or the files of the list.",
        options=options.WeightsImportOptions,
        goes_on=True,
      ),
    ),
  ),
)
