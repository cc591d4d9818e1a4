"""Which jobs share a kernel: short ones of one dose or view, never two that need one another."""

from study_lib.design.presets import load_design
from study_lib.runs.plan import plan_jobs
from study_lib.runs.resources import JobResources, kernel_groups

SHORT, LONG = JobResources(mem_mb=2000, runtime_min=12), JobResources(runtime_min=40)
DESIGN = load_design("smoke", ["doses=[1.0e+3, 1.0e+4]", "replicates=2"])


def grouped(need, **changed):
    jobs = plan_jobs(DESIGN)
    needs = {job.name: changed.get(job.notebook[3:], need) for job in jobs}
    return kernel_groups(jobs, needs)


def test_views_of_a_dose_and_splits_of_a_view_run_together():
    found = grouped(SHORT)

    sizes = {batch.jobs[0].notebook: len(batch.jobs) for batch in found}
    assert sizes == {
        "00_design": 1,
        "01_dataset": 1,
        "02_overlap": 3,
        "03_train": 1,
        "03_train_thinned": 1,
        "04_reconstruct": 2,
        "05_compare": 2,
        "06_summary": 1,
    }
    for batch in found:
        shared = {(job.notebook, job.parameters["run_folder"]) for job in batch.jobs}
        assert len(shared) == 1, "one notebook, one replicate"
    names = [job.name for batch in found for job in batch.jobs]
    assert sorted(names) == sorted(job.name for job in plan_jobs(DESIGN)), "each job once"


def test_no_batch_waits_for_itself_and_each_comes_after_what_it_needs():
    done = set()
    for batch in grouped(SHORT):
        own = {job.name for job in batch.jobs}
        assert not own & set(batch.after)
        assert set(batch.after) <= done
        done |= own


def test_long_jobs_have_a_kernel_each():
    found = grouped(SHORT, reconstruct=LONG)

    assert all(
        len(batch.jobs) == 1 for batch in found if batch.jobs[0].notebook == "04_reconstruct"
    )
    assert all(
        len(batch.jobs) == 1
        for batch in grouped(JobResources(gpus=1, runtime_min=SHORT.runtime_min))
    )


def test_a_batch_asks_for_the_time_of_all_and_the_memory_of_the_largest():
    batch = next(one for one in grouped(SHORT) if one.jobs[0].notebook == "02_overlap")

    assert batch.need == JobResources(threads=1, mem_mb=2000, runtime_min=36)
    assert batch.name == f"{batch.jobs[0].name}__and_2_more"
