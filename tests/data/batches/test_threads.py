from imagenet_jax.data.batches import threads


def test_visible_cores_follow_the_affinity(monkeypatch):
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: {0, 5, 9}, raising=False)
    assert threads.visible_cores() == 3
    monkeypatch.delattr(threads.os, "sched_getaffinity")
    monkeypatch.setattr(threads.os, "cpu_count", lambda: None)
    assert threads.visible_cores() == 1
