"""Compare throughput over HTTP, with a real service and client, with a loop in this process on the same engine.

The loop decodes and prepares the same JPEGs with as many threads as cores and classifies them at its best batch.
`ratio` is the plain one; `without_client` grants the service the processor time that the client took.
"""

from __future__ import annotations

from bench.load import Answers, closed_loop
from bench.rounds import alternate, arguments, compared, emit, spread
from bench.served import in_process, same_labels, served, serving_arguments

TARGET = 0.85
TARGET_WITHOUT_CLIENT = 0.92


def main() -> None:
    parser = serving_arguments(arguments(__doc__))
    parser.add_argument("--engine", help="on both sides, in place of the one that the service chose")
    given = parser.parse_args()
    with served(given) as service:
        classifier, images, target = service.classifier, service.images, service.target()
        if given.engine:
            service.use_engine(given.engine)
            target = service.target(engine=given.engine)
        best = max((1, 8, 32), key=lambda batch: in_process(classifier, images, given.seconds / 5, batch)[0])
        rounds: list[Answers] = []
        expected: dict[int, str] = {}

        def http_round(_: int) -> float:
            rounds.append(closed_loop(target, images, given.seconds, given.connections))
            assert not rounds[-1].failed, rounds[-1].failed[0]
            return rounds[-1].rate

        def loop_round(_: int) -> float:
            rate, labels = in_process(classifier, images, given.seconds, best)
            expected.update(labels)
            return rate

        ours, theirs = alternate(http_round, loop_round, given.rounds)
    plain, without = compared(ours, theirs), compared([one.rate_without_client for one in rounds], theirs)
    emit(
        "serve_http",
        **plain,
        target=TARGET,
        met=plain["ratio"] >= TARGET,
        without_client=without | {"target": TARGET_WITHOUT_CLIENT, "met": without["ratio"] >= TARGET_WITHOUT_CLIENT},
        images_per_second={"http": spread(ours, 1), "loop": spread(theirs, 1)},
        same_labels=same_labels({number: label for one in rounds for number, label in one.labels.items()}, expected),
        engine=classifier.engine.name,
        engines=service.model["engines"][0]["measured"],
        batch=best,
        connections=given.connections,
        backbone=given.backbone,
        size=given.size,
    )


if __name__ == "__main__":
    main()
