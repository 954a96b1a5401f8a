"""What somebody may type, or have on his disk, that cannot be: (command, arguments, words of the answer), by kind.

``{lab}`` in an argument stands for the folder that bad_lab.py fills. ``train`` is python train.py, all others are
commands of hepo-isaac. Numbers, groups and words are told apart because they come from different mistakes.
"""

from __future__ import annotations

from typing import NamedTuple


class Bad(NamedTuple):
    """One mistake."""

    kind: str
    command: str
    arguments: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def slow(self) -> bool:
        """Whether it takes an engine in a process of its own, or a package that takes seconds to import."""
        twin = self.command == "play" and self.arguments not in FIRST  # as eval, up to where the film begins
        return twin or (self.command, self.arguments) in SLOW

    @property
    def name(self) -> str:
        return "%s: %s" % (self.command, " ".join(self.arguments) or "nothing")


FIRST = ((), ("run={lab}/config_binary",), ("run={lab}/checkpoint_text",), ("run={lab}/good", "foo=1", "bar=2"))
_TWO = "engines=mujoco_batch,mujoco_warp"
SLOW = (("parity", ("task=Cartpole", "run={lab}/nowhere", _TWO)),)

# ---- numbers: key -> values that it cannot have. Judged before anything is built. ---------------------------------
NUMBERS = {
    "num_envs": ("1e10", "10000000000", "9" * 40, "inf", "nan", "-4", "0", "2.5"),
    "seed": ("9" * 30, "inf", "nan", "-1", "1.5", "1e3"),
    "seeds": ("0", "-2", "9" * 20, "inf", "[1,1]", "[-1]", "[nan]", "[]", "[0,4294967296]"),
    "torch_threads": ("100000", "0", "inf"),
    "update_threads": ("9" * 25, "-1", "nan"),
    "checkpoint_every": ("9" * 25, "0", "inf"),
    "keep_checkpoints": ("-1", "nan", "9" * 25),
    "evaluation_episodes": ("-1", "inf", "9" * 25),
    "eval.episodes": ("0", "nan", "9" * 25),
    "train.max_iterations": ("inf", "9" * 25, "0", "1e4"),
    "train.horizon_length": ("9" * 12, "nan", "-1"),
    "train.minibatch_size": ("9" * 25, "0", "inf"),
    "train.mini_epochs": ("9" * 12, "0", "nan"),
    "train.schedule_iterations": ("-3", "9" * 25, "nan"),
    "train.learning_rate": ("inf", "nan", "-1", "1e30", "0"),
    "train.min_lr": ("nan", "inf", "-1e-3"),
    "train.max_lr": ("nan", "inf", "0"),
    "train.gamma": ("nan", "inf", "1.5", "-0.1"),
    "train.tau": ("nan", "2"),
    "train.e_clip": ("nan", "inf", "0", "-1"),
    "train.critic_coef": ("nan", "inf", "-1", "1e300"),
    "train.entropy_coef": ("nan", "inf", "-1"),
    "train.bounds_loss_coef": ("nan", "inf"),
    "train.grad_norm": ("nan", "0", "-inf"),
    "train.kl_threshold": ("nan", "inf", "0"),
    "train.max_bad_fraction": ("nan", "2", "-1"),
    "train.value_target_clip": ("nan", "0", "-inf"),
    "train.network.units": ("[0]", "[-5]", "[inf]", "[99999999999]", "[]", "[2.5]"),
    "algo.heuristic_weight": ("nan", "inf", "1e300"),
    "algo.off_policy_fraction": ("nan", "0", "2"),
    "algo.dual_clip": ("nan", "0.5"),
    "algo.reference_noise": ("nan", "inf", "-1"),
    "algo.partner_pull": ("nan", "inf"),
    "algo.multiplier.lr": ("nan", "inf", "-1"),
    "algo.multiplier.init": ("nan", "inf", "-1"),
    "algo.multiplier.maximum": ("nan", "-5"),
    "algo.multiplier.median_window": ("0", "9" * 25),
    "algo.references.window_episodes": ("0", "9" * 25),
    "algo.threshold": ("nan", "inf"),
    "task.episode_length": ("0", "nan", "9" * 25, "inf", "-1"),
    "task.room": ("nan", "inf"),
}
ROBOT_NUMBERS = {
    "sim.threads": ("100000", "-1", "inf", "9" * 25),
    "task.physics.control_dt": ("nan", "inf", "0", "-0.01", "1e9", "1e-12"),
    "task.physics.substeps": ("0", "-2", "nan", "9" * 25, "100000"),
    "task.physics.options.mujoco_warp.nconmax": ("-1", "nan"),
    "task.physics.options.isaacgym.physx.contact_offset": ("nan", "inf"),
}
FRANKA_NUMBERS = {
    "task.physics.friction": ("-1", "nan", "inf"),
    "task.physics.solref_steps": ("nan", "0"),
    "task.physics.drawer_damping": ("-1", "nan", "inf"),
    "task.physics.drives.mujoco.arm.stiffness": ("-400", "nan", "inf"),
    "task.physics.drives.mujoco.arm.armature": ("-1", "nan"),
    "task.physics.options.mujoco.iterations": ("0", "-5", "9" * 25),
    "task.physics.options.mujoco.tolerance": ("nan", "-1"),
    "task.physics.num_props": ("-1", "9" * 25),
}


def numbers() -> list[Bad]:
    tasks = {"Push2D": NUMBERS, "Cartpole": ROBOT_NUMBERS, "FrankaCabinet": FRANKA_NUMBERS}
    return [
        Bad("number", "train", ("task=" + task, "%s=%s" % (key, value)), (key,))
        for task, keys in tasks.items()
        for key, values in keys.items()
        for value in values
    ]


# ---- words ---------------------------------------------------------------------------------------------------------
TRAIN = [
    (("nonsense",), ("nonsense", "key=value")),
    (("task",), ("'task'",)),
    (("=3",), ("=3",)),
    (("num_envs=",), ("num_envs", "nothing")),
    (("num_envs=many",), ("num_envs", "many")),
    (("num_envs=[4]",), ("num_envs",)),
    (("num_envs={a: 1}",), ("num_envs",)),
    (("seed=true",), ("seed",)),
    (("train.gamma=high",), ("train.gamma", "high")),
    (("train.gamma=true",), ("train.gamma",)),
    (("train=fast",), ("train",)),
    (("train.network.units=64",), ("train.network.units", "list")),
    (("train.network.activation=gelu2",), ("train.network.activation",)),
    (("train.lr_schedule=sometimes",), ("train.lr_schedule",)),
    (("train.normalize_input=perhaps",), ("train.normalize_input",)),
    (("train.fused=maybe",), ("train.fused",)),
    (("algo.mixing=both",), ("algo.mixing",)),
    (("algo.name=",), ("algo.name",)),
    (("algo.name=null",), ("algo.name",)),
    (("algo.name=../../x",), ("algo.name", "../../x")),
    (("algo.name=/etc",), ("algo.name", "/etc")),
    (("algo.name=.",), ("algo.name",)),
    (("algo.name=..",), ("algo.name",)),
    (("algo.name=a b",), ("algo.name", "a b")),
    (("algo.name='a\nb'",), ("algo.name",)),
    (("algo.name=" + "a" * 300,), ("algo.name",)),
    (("algo.name=hépo",), ("algo.name",)),
    (("algo.name=[a]",), ("algo.name",)),
    (("algo.name=12",), ("algo.name",)),
    (("run_root=",), ("run_root",)),
    (("run_root=null",), ("run_root",)),
    (("run_root=''",), ("run_root",)),
    (("run_root={lab}/a_file",), ("a_file",)),
    (("run_root=/dev/null/x",), ("/dev/null",)),
    (("device=tpu",), ("device", "tpu")),
    (("device=cuda:x",), ("device", "cuda:x")),
    (("device=cuda:99",), ("device",)),
    (("device=cuda:-1",), ("device",)),
    (("device=",), ("device",)),
    (("sim=bullet",), ("sim", "bullet")),
    (("sim=mujoco_batch",), ("sim", "analytic")),
    (("algo=sac",), ("algo", "sac")),
    (("algo=",), ("algo",)),
    (("budget=huge",), ("budget", "huge")),
    (("task=",), ("task",)),
    (("task=ant",), ("'Ant'",)),
    (("task=[Ant]",), ("task",)),
    (("task=null",), ("task",)),
    (("task=1",), ("task",)),
    (("task=../cfg",), ("task", "../cfg")),
    (("heuristic=",), ("heuristic",)),
    (("heuristic=:",), ("heuristic=:", "package.module:function")),
    (("heuristic=a:",), ("heuristic=a:",)),
    (("heuristic=:f",), ("heuristic=:f",)),
    (("heuristic=..:f",), ("heuristic=..:f",)),
    (("heuristic=h99",), ("'h99'",)),
    (("heuristic=os:getcwd",), ("os:getcwd", "state")),
    (("heuristic=os:path",), ("os:path",)),
    (("heuristic=os:nothing",), ("os:nothing",)),
    (("heuristic=nothing_of_this_name:f",), ("nothing_of_this_name",)),
    (("heuristic=torch.nn:Module",), ("torch.nn:Module",)),
    (("heuristic=shaping_of_bad_lab:number",), ("number",)),
    (("heuristic=shaping_of_bad_lab:raises",), ("shaping_of_bad_lab.py", "line 8", "1.0 / 0", "ZeroDivisionError")),
    (("heuristic=shaping_of_bad_lab:no_parameter",), ("no_parameter", "shaping_of_bad_lab.py", "line 11")),
    (("heuristic=shaping_of_bad_lab:two_parameters",), ("two_parameters", "goal", "line 15")),
    (("heuristic=shaping_of_bad_lab:unknown_field",), ("colour", "line 20", "state.colour")),
    (("heuristic=shaping_of_bad_lab:returns_nothing",), ("returns_nothing", "NoneType")),
    (("heuristic=shaping_of_bad_lab:returns_rows",), ("returns_rows", "shape")),
    (("heuristic=shaping_of_bad_lab:exits",), ("exits", "SystemExit")),
    (("heuristic=shaping_of_bad_lab:no_terms",), ("no_terms", "no terms")),
    (("heuristic=shaping_of_bad_lab:in_place",), ("in_place", "in place")),
    (("heuristic=syntax_of_bad_lab:h",), ("syntax_of_bad_lab.py", "line 1")),
    (("heuristic=import_of_bad_lab:h",), ("nothing_of_this_name", "import_of_bad_lab.py", "line 1")),
    (("heuristic=dies_of_bad_lab:h",), ("no licence", "dies_of_bad_lab.py", "line 1")),
    (("heuristic=exits_of_bad_lab:h",), ("exits_of_bad_lab.py", "line 2")),
    (("potential=os:getcwd", "algo=pbrs"), ("os:getcwd",)),
    (("potential=shaping_of_bad_lab:raises", "algo=pbrs", "algo.shaping.potential=state"), ("line 8",)),
    (("wandb.mode=sometimes",), ("wandb.mode",)),
    (("wandb.project=../../x",), ("wandb.project",)),
    (("wandb.group=a/b",), ("wandb.group",)),
    (("wandb.entity=a b/",), ("wandb.entity",)),
    (("wandb.project=",), ("wandb.project",)),
    (("test=perhaps",), ("test",)),
    (("test=true",), ("checkpoint=",)),
    (("test=true", "checkpoint=nowhere.pt"), ("nowhere.pt",)),
    (("test=true", "checkpoint={lab}/a_file"), ("a_file",)),
    (("test=true", "checkpoint={lab}/empty_folder"), ("empty_folder",)),
    (("test=true", "checkpoint="), ("checkpoint",)),
    (("checkpoint={lab}/good",), ("checkpoint", "test=true")),
    (("algo.frozen_reference=nowhere",), ("nowhere",)),
    (("algo.frozen_reference={lab}/a_file",), ("a_file",)),
    (("task=Push2D,", "-m"), ("task",)),
    (("-m", "seed=1,x"), ("seed", "x")),
    (("-m", "task=Push2D,Pull2D"), ("Pull2D",)),
    (("-m", "num_envs=range(1"), ("num_envs=range(1",)),
    (("seed=1,2",), ("seed=1,2", "-m")),
    (("task=Push2D,Maze2D",), ("-m",)),
    (("-m", "resume={lab}/good"), ("--multirun",)),
    (("num_envs=${seed",), ("num_envs",)),
    (("seed=${nothing}",), ("nothing",)),
    (("hydra.nothing=1",), ("hydra.nothing",)),
    (("hydra/launcher=rocket",), ("rocket",)),
    (("--confg-dir=x",), ("confg_dir",)),
    (("-x",), ("-x",)),
    (("--cfg",), ("--cfg",)),
    (("--cfg", "everything"), ("everything",)),
    (("--config-name=nothing",), ("--config-name",)),
]
EDITED_KEYS = [
    (("~seed",), ("~seed",)),
    (("~train.gamma",), ("~train.gamma",)),
    (("~task",), ("~task",)),
    (("~algo=hepo",), ("~algo",)),
    (("~nothing",), ("~nothing",)),
    (("~",), ("~",)),
    (("+foo=1",), ("foo",)),
    (("++foo=1",), ("foo",)),
    (("+train.foo=1",), ("train.foo",)),
    (("+seed=1",), ("seed", "no plus")),
    (("+task=Ant",), ("task", "no plus")),
    (("+=1",), ("+=1",)),
    (("foo=1",), ("foo",)),
    (("numenvs=4",), ("'num_envs'",)),
    (("gamma=0.9",), ("'train.gamma'",)),
    (("train.gamma.x=1",), ("train.gamma.x",)),
    (("task.budgets.demo.foo=3",), ("foo",)),
    (("num_envs=4", "num_envs=8"), ("num_envs=4", "num_envs=8", "twice")),
    (("task=Push2D", "task=Maze2D"), ("task=Push2D", "task=Maze2D")),
    (("max_iterations=3", "train.max_iterations=4"), ("max_iterations=3", "train.max_iterations=4")),
    (("seed=1", "++seed=2"), ("seed=1", "seed=2")),
]
RUNS_OF = {
    "config_empty": "config.yaml",
    "config_binary": "config.yaml",
    "config_syntax": "config.yaml",
    "config_list": "config.yaml",
    "config_word": "config.yaml",
    "config_foreign": "config.yaml",
    "config_utf16": "config.yaml",
    "config_tag": "config.yaml",
    "edit_envs_word": "num_envs",
    "edit_envs_huge": "num_envs",
    "edit_envs_none": "num_envs",
    "edit_seed_inf": "seed",
    "edit_task_unknown": "Pull2D",
    "edit_algo_path": "algo.name",
    "edit_rate_nan": "train.learning_rate",
    "edit_key_extra": "horizon_lenght",
    "edit_units_word": "train.network.units",
    "edit_steps_nan": "task.episode_length",
    "checkpoint_empty": "checkpoint",
    "checkpoint_binary": "checkpoint",
    "checkpoint_text": "checkpoint",
    "no_config": "config.yaml",
    "no_checkpoint": "checkpoint",
    "empty_folder": "config.yaml",
    "a_file": "a_file",
    "nowhere": "nowhere",
}
PLUGINS = {
    "NoYaml": ("NoYaml.yaml",),
    "YamlEmpty": ("YamlEmpty.yaml",),
    "YamlBinary": ("YamlBinary.yaml",),
    "YamlSyntax": ("YamlSyntax.yaml", "line"),
    "YamlList": ("YamlList.yaml",),
    "YamlOther": ("YamlOther.yaml", "YamlOther"),
    "LengthMissing": ("LengthMissing.yaml", "task.episode_length"),
    "LengthWord": ("LengthWord.yaml", "task.episode_length"),
    "LengthNan": ("LengthNan.yaml", "task.episode_length"),
    "BudgetsMissing": ("BudgetsMissing.yaml", "task.budgets"),
    "BudgetWord": ("BudgetWord.yaml", "task.budgets"),
    "RateWord": ("RateWord.yaml", "train.learning_rate"),
    "TrainKey": ("TrainKey.yaml", "train.learning_rat"),
    "EngineWord": ("EngineWord.yaml", "task.engines", "physics"),
    "DefaultsWrong": ("DefaultsWrong.yaml", "nothing"),
    "CodeSyntax": ("codesyntax_lab.py", "line 1"),
    "CodeImport": ("codeimport_lab.py", "nothing_of_this_name", "line 1"),
    "CodeRaises": ("coderaises_lab.py", "ZeroDivisionError", "line 4"),
    "CodeNoTask": ("codenotask_lab.py", "no task"),
    "CodeName": ("codename_lab.py", "OtherName"),
    "CodeExits": ("codeexits_lab.py", "SystemExit", "line 4"),
}
PLUGIN_PLACES = [
    ("task=./nowhere.py:Class", ("nowhere.py",)),
    ("task={lab}/noyaml_lab.py:Nothing", ("Nothing", "noyaml_lab.py")),
    ("task={lab}/empty_folder", ("empty_folder",)),
    ("task={lab}/a_file", ("a_file",)),
    ("task={lab}", ("codesyntax_lab.py",)),
    ("task={lab}/noyaml_lab.py:", ("noyaml_lab.py",)),
]
RESUME = [
    (("resume={lab}/good", "train.max_iterations=1"), ("train.max_iterations=1", "iteration 3")),
    (("resume={lab}/good",), ("complete", "train.max_iterations")),
    (("resume={lab}/good", "train.max_iterations=inf"), ("train.max_iterations",)),
    (("resume={lab}/good", "train.max_iterations=1e9"), ("train.max_iterations",)),
    (("resume={lab}/good", "train.max_iterations=" + "9" * 25), ("train.max_iterations",)),
    (("resume={lab}/good", "train.gamma=0.5"), ("train.gamma",)),
    (("resume={lab}/good", "foo=1"), ("foo",)),
    (("resume={lab}/good", "~seed"), ("~seed",)),
    (("resume={lab}/good", "+foo=1"), ("foo",)),
    (("resume={lab}/good", "nonsense"), ("nonsense",)),
    (("resume={lab}/good", "checkpoint_every=0"), ("checkpoint_every",)),
    (("resume={lab}/good", "torch_threads=100000"), ("torch_threads",)),
    (("resume={lab}/good", "wandb.mode=x"), ("wandb.mode",)),
    (("resume={lab}/good", "wandb.project=../x"), ("wandb.project",)),
    (("resume={lab}/good", "plot=3"), ("plot",)),
    (("resume={lab}/good", "task=Ant"), ("task",)),
    (("resume={lab}/good", "resume={lab}/robot"), ("resume=",)),
    (("resume={lab}/good", "run_root=x"), ("run_root",)),
    (("resume={lab}/good,{lab}/nowhere",), ("nowhere",)),
    (("resume={lab}/good,{lab}/robot",), ("last.pt",)),
    (("resume={lab}/good/config.yaml",), ("config.yaml",)),
    (("resume={lab}/good/checkpoints/nothing.pt",), ("nothing.pt",)),
    (("resume={lab}/good/metrics.csv",), ("metrics.csv",)),
    (("resume=latest", "run_root={lab}/empty_folder"), ("latest", "empty_folder")),
]
PLAYED = [  # of eval and play
    ((), ("run=",)),
    (("run=",), ("run=",)),
    (("{lab}/good",), ("key=value",)),
    (("--run", "{lab}/good"), ("key=value",)),
    (("run={lab}/good", "episodes=0"), ("eval.episodes",)),
    (("run={lab}/good", "episodes=inf"), ("eval.episodes",)),
    (("run={lab}/good", "episodes=" + "9" * 25), ("eval.episodes",)),
    (("run={lab}/good", "episodes=many"), ("eval.episodes",)),
    (("run={lab}/good", "deterministic=perhaps"), ("eval.deterministic",)),
    (("run={lab}/good", "task=Ant"), ("task",)),
    (("run={lab}/good", "algo=eipo"), ("algo",)),
    (("run={lab}/good", "num_envs=1e10"), ("num_envs",)),
    (("run={lab}/good", "run={lab}/robot"), ("run=", "twice")),
    (("run={lab}/good", "device=tpu"), ("tpu",)),
    (("run={lab}/good", "foo=1", "bar=2"), ("foo", "bar")),
    (("run=random",), ("task=",)),
    (("run=random", "task=nothing"), ("nothing",)),
    (("task=AllegroHand",), ("AllegroHand",)),
    (("run=latest", "run_root={lab}/empty_folder"), ("latest",)),
]
VIEW = [
    ((), ("run=",)),
    (("run=",), ("run=",)),
    (("{lab}/robot",), ("key=value",)),
    (("run={lab}/robot", "port=0"), ("port",)),
    (("run={lab}/robot", "port=99999"), ("port",)),
    (("run={lab}/robot", "port=http"), ("port",)),
    (("run={lab}/robot", "robots=0"), ("robots",)),
    (("run={lab}/robot", "robots=1e10"), ("robots",)),
    (("run={lab}/robot", "robots=nan"), ("robots",)),
    (("run={lab}/robot", "host=nowhere.invalid"), ("host",)),
    (("run={lab}/robot", "foo=1"), ("foo",)),
    (("run={lab}/good",), ("Push2D",)),
    (("run={lab}/nowhere",), ("nowhere",)),
    (("run={lab}/robot_config_empty",), ("config.yaml",)),
    (("run={lab}/robot_config_binary",), ("config.yaml",)),
    (("run={lab}/robot_config_foreign",), ("config.yaml",)),
    (("run={lab}/robot_config_syntax",), ("config.yaml",)),
    (("run=random", "task=nothing"), ("nothing",)),
    (("run={lab}/robot", "run={lab}/good"), ("run=", "twice")),
]
EXPORT = [
    ((), ("run=",)),
    (("{lab}/robot",), ("key=value",)),
    (("run=",), ("run=",)),
    (("run={lab}/robot", "format=keras"), ("keras",)),
    (("run={lab}/robot", "policy=pi_x"), ("pi_x",)),
    (("run={lab}/robot", "foo=1"), ("foo",)),
    (("run={lab}/robot", "out=/dev/null/x.onnx"), ("/dev/null",)),
    (("run={lab}/robot", "out=x.txt"), ("x.txt",)),
    (("run={lab}/robot", "checkpoint=nothing"), ("nothing",)),
    (("run={lab}/robot", "overwrite=perhaps"), ("overwrite",)),
    (("run={lab}/robot", "task=Ant"), ("Cartpole", "Ant")),
    (("run={lab}/robot", "run={lab}/robot"), ("twice",)),
    (("run={lab}/nowhere",), ("nowhere",)),
    (("task=AllegroHand",), ("AllegroHand",)),
    (("run={lab}/robot_checkpoint_binary",), ("best.pt",)),
    (("run={lab}/robot_config_empty",), ("config.yaml",)),
    (("run={lab}/robot_config_binary",), ("config.yaml",)),
    (("run={lab}/robot_config_foreign",), ("config.yaml",)),
]
COMPARE = [
    ((), ("folder",)),
    (("{lab}/nowhere",), ("nowhere",)),
    (("{lab}/empty_folder",), ("empty_folder",)),
    (("{lab}/a_file",), ("a_file",)),
    (("{lab}/config_empty",), ("unreadable",)),
    (("{lab}/config_binary",), ("unreadable",)),
    (("{lab}/config_foreign",), ("unreadable",)),
    (("{lab}/metrics_empty",), ("final score",)),
    (("{lab}/metrics_binary",), ("metrics.csv",)),
    (("{lab}/metrics_foreign",), ("final score",)),
    (("{lab}/metrics_words",), ("final score",)),
    (("{lab}/metrics_huge_cell",), ("metrics.csv",)),
    (("{lab}/good", "--baseline", "nothing"), ("nothing",)),
    (("{lab}/good", "--arms", "nothing"), ("nothing",)),
    (("{lab}/good", "--tasks", "nothing"), ("nothing",)),
    (("{lab}/good", "--score", "beauty"), ("beauty",)),
    (("{lab}/good", "--reps", "0"), ("--reps",)),
    (("{lab}/good", "--reps", "many"), ("--reps",)),
    (("{lab}/good", "--reps", "9" * 20), ("--reps",)),
    (("{lab}/good", "--seed", "-1"), ("--seed",)),
    (("{lab}/good", "--seed", "nan"), ("--seed",)),
    (("{lab}/good", "--nothing"), ("--nothing",)),
    (("{lab}/good", "--out"), ("--out",)),
    (("{lab}/good", "--out", "{lab}/a_file"), ("a_file",)),
    (("runs=x",), ("runs=x",)),
]
AUDIT = [
    ((), ("run=",)),
    (("{lab}/good",), ("key=value",)),
    (("run=",), ("run=",)),
    (("foo=1",), ("foo",)),
    (("run={lab}/nowhere",), ("nowhere",)),
    (("run={lab}/empty_folder",), ("metrics.csv",)),
    (("run={lab}/no_metrics",), ("metrics.csv",)),
    (("run={lab}/metrics_empty",), ("metrics.csv",)),
    (("run={lab}/metrics_binary",), ("metrics.csv",)),
    (("run={lab}/metrics_foreign",), ("metrics.csv",)),
    (("run={lab}/metrics_words",), ("metrics.csv",)),
    (("run={lab}/metrics_header",), ("metrics.csv",)),
    (("run={lab}/metrics_huge_cell",), ("metrics.csv",)),
    (("run={lab}/metrics_nul",), ("metrics.csv",)),
    (("run={lab}/a_file",), ("a_file",)),
    (("run={lab}/good", "run={lab}/robot"), ("twice",)),
    (("run={lab}/good", "json=/dev/null/x.json"), ("/dev/null",)),
    (("run={lab}/good", "json={lab}"), ("json",)),
]
PARITY = [
    (("task=Push2D",), ("Push2D",)),
    (("task=nothing",), ("nothing",)),
    (("task=",), ("task",)),
    (("Cartpole",), ("key=value",)),
    (("engines=mujoco_batch",), ("task=",)),
    (("task=Cartpole", "engines=mujoco_batch"), ("two engines",)),
    (("task=Cartpole", "engines=mujoco_batch,mujoco_batch"), ("mujoco_batch", "itself")),
    (("task=Cartpole", "engines=bullet,mujoco_batch"), ("bullet",)),
    (("task=Cartpole", "engine=bullet"), ("bullet",)),
    (("task=Cartpole", "sim=mujoco_batch"), ("sim=",)),
    (("task=Cartpole", "steps=0"), ("steps",)),
    (("task=Cartpole", "steps=nan"), ("steps",)),
    (("task=Cartpole", "steps=" + "9" * 25), ("steps",)),
    (("task=Cartpole", "num_envs=1e10"), ("num_envs",)),
    (("task=Cartpole", "num_envs=" + "9" * 12), ("num_envs",)),
    (("task=Cartpole", "seed=" + "9" * 25), ("seed",)),
    (("task=Cartpole", "episodes=1"), ("episodes",)),
    (("task=Cartpole", "episodes=" + "9" * 12), ("episodes",)),
    (("task=Cartpole", "singles=0"), ("singles",)),
    (("task=Cartpole", "actions=clever"), ("clever",)),
    (("task=Cartpole", "actions=run"), ("run=",)),
    (("task=Cartpole", "page=perhaps"), ("page",)),
    (("task=Cartpole", "foo=1"), ("foo",)),
    (("task=Cartpole", "sim.foo=1"), ("sim.foo",)),
    (("task=Cartpole", "second.foo=1"), ("foo",)),
    (("task=Cartpole", "task.physics.control_dt=nan"), ("task.physics.control_dt",)),
    (("task=Cartpole", "steps=5", "steps=6"), ("steps=5", "steps=6")),
    (("task=Cartpole", "engine=mujoco_batch", "against={lab}/nowhere.npz"), ("nowhere.npz",)),
    (("task=Cartpole", "engine=mujoco_batch", "against={lab}/recording.npz"), ("recording.npz",)),
    (("task=Cartpole", "engine=mujoco_batch", "against={lab}/a_file"), ("a_file",)),
    (("task=Cartpole", "python.mujoco_batch=/dev/null/python", "engines=mujoco_batch,mujoco_warp"), ("/dev/null",)),
    (("task=Cartpole", "python.bullet=python"), ("bullet",)),
    (("task=Cartpole", "run={lab}/nowhere", "engines=mujoco_batch,mujoco_warp"), ("nowhere",)),
    (("task=Cartpole", "out={lab}/a_file", "engines=mujoco_batch,mujoco_warp"), ("out=", "a_file")),
    (("task=Cartpole", "save=/dev/null/x.npz", "engine=mujoco_batch"), ("save=", "/dev/null")),
]
BENCH = [
    (("--tasks", "Push2D"), ("Push2D",)),
    (("--tasks",), ("--tasks",)),
    (("--blocks", "0"), ("--blocks",)),
    (("--blocks", "-3"), ("--blocks",)),
    (("--blocks", "many"), ("--blocks", "many")),
    (("--blocks", "1e10"), ("--blocks",)),
    (("--env-envs", "0"), ("--env-envs",)),
    (("--env-envs", "9" * 12), ("--env-envs",)),
    (("--train-envs", "-1"), ("--train-envs",)),
    (("--train-envs", "nan"), ("--train-envs",)),
    (("--train-envs", "3"), ("num_envs=3",)),
    (("--processes", "0"), ("--processes",)),
    (("--processes", "100000"), ("--processes",)),
    (("--out", "/dev/null/x.json"), ("/dev/null",)),
    (("--out", "{lab}"), ("--out",)),
    (("--nothing",), ("--nothing",)),
    (("num_envs=4",), ("num_envs=4",)),
]
GPU_CHECK = [
    (("--tasks", "nothing"), ("nothing",)),
    (("--device", "tpu"), ("tpu",)),
    (("--device", "cuda:99"), ("cuda",)),
    (("--fake", "--arch", "sm_1"), ("sm_1",)),
    (("--only", "everything"), ("everything",)),
    (("--device", "cpu", "--num-envs", "0"), ("--num-envs",)),
    (("--device", "cpu", "--num-envs", "9" * 12), ("--num-envs",)),
    (("--device", "cpu", "--sizes", "-1"), ("--sizes",)),
    (("--device", "cpu", "--steps", "0"), ("--steps",)),
    (("--device", "cpu", "--iterations", "-2"), ("--iterations",)),
    (("--device", "cpu", "--seconds", "nan"), ("--seconds",)),
    (("--device", "cpu", "--seconds", "-1"), ("--seconds",)),
    (("--device", "cpu", "--job-seconds", "inf"), ("--job-seconds",)),
    (("--device", "cpu", "--learn", "nan"), ("--learn",)),
    (("--device", "cpu", "--out", "{lab}/a_file"), ("a_file",)),
    (("--nothing",), ("--nothing",)),
    (("device=cpu",), ("device=cpu",)),
]
BUNDLE = [
    ((), ("OUT",)),
    (("{lab}/a_file",), ("a_file",)),
    (("{lab}/good",), ("good",)),
    (("out", "--arch", "sm_1"), ("sm_1",)),
    (("out", "--arch", "h100"), ("h100",)),
    (("out", "--python", "2.7"), ("2.7",)),
    (("out", "--python", "three"), ("three",)),
    (("out", "--tasks", "nothing"), ("nothing",)),
    (("out", "--max-part", "0"), ("--max-part",)),
    (("out", "--max-part", "big"), ("big",)),
    (("out", "--max-part", "-5MiB"), ("--max-part",)),
    (("out", "--nothing"), ("--nothing",)),
    (("out", "more"), ("more",)),
]
REPLAY = [
    ((), ("run=",)),
    (("{lab}/good",), ("key=value",)),
    (("run=",), ("run=",)),
    (("run={lab}/nowhere",), ("nowhere",)),
    (("run={lab}/empty_folder",), ("empty_folder",)),
    (("run={lab}/a_file",), ("a_file",)),
    (("run={lab}/good", "foo=1"), ("foo",)),
]
PLAIN = {
    "tasks": [(("please",), ("please",)), (("--nothing",), ("--nothing",)), (("task=Ant",), ("task=Ant",))],
    "policies": [(("please",), ("please",)), (("--nothing",), ("--nothing",))],
    "doctor": [(("please",), ("please",)), (("--nothing",), ("--nothing",))],
    "completion": [((), ("bash",)), (("powershell",), ("powershell",)), (("bash", "zsh"), ("zsh",))],
    "trian": [((), ("'train'",))],
    "--nothing": [((), ("--nothing",))],
    "": [((), ("command",))],
}


def cases() -> list[Bad]:
    """All of them."""
    found = numbers()

    def add(kind: str, command: str, rows, before: tuple[str, ...] = ()) -> None:
        found.extend(Bad(kind, command, (*before, *arguments), words) for arguments, words in rows)

    add("word", "train", [(_with_task(arguments), words) for arguments, words in TRAIN])
    add("key", "train", [(_with_task(arguments), words) for arguments, words in EDITED_KEYS])
    add("resume", "train", RESUME)
    for name in ("binary", "foreign", "words", "huge_cell"):
        add("broken run", "train", [(("resume={lab}/metrics_" + name, "train.max_iterations=5"), ("metrics.csv",))])
    for run, word in RUNS_OF.items():
        add("broken run", "train", [(("resume={lab}/%s" % run, "train.max_iterations=5"), (word,))])
        add("broken run", "eval", [(("run={lab}/%s" % run, "episodes=2"), (word,))])
        if run.startswith(("config", "no", "checkpoint", "empty")):
            add("broken run", "play", [(("run={lab}/%s" % run,), (word,))])
    for name, words in PLUGINS.items():
        add("plug-in", "train", [(("task={lab}/%s_lab.py:%s" % (name.lower(), name),), words)])
    add("plug-in", "train", [((argument,), words) for argument, words in PLUGIN_PLACES])
    for command in ("eval", "play"):
        add("arguments", command, PLAYED)
    for command, rows in {
        "view": VIEW, "export": EXPORT, "compare": COMPARE, "audit": AUDIT, "parity": PARITY, "bench": BENCH,
        "gpu-check": GPU_CHECK, "bundle": BUNDLE, "replay-bad": REPLAY, **PLAIN,
    }.items():  # fmt: skip
        add("arguments", command, rows)
    return found


def _with_task(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Of a task that is small and quickly built, unless another is named."""
    return arguments if any(a.lstrip("~+").startswith("task") for a in arguments) else ("task=Push2D", *arguments)
