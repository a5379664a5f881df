"""Lines that end at a broker: what of `[[line]]` makes their settings, and what of it must fit `[[mqtt]]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from config.problems import Where, nearest, shown
from config.tables import LineTable
from headend.endpoints import Endpoint, Topics
from headend.errors import Problem
from headend.mqtt.settings import BrokerSettings

__all__ = ["broker_problems", "mqtt_endpoint", "mqtt_reply_s", "shared_topics", "topics_problems"]

_DTU_REPLY_S: Final = 5.0
_CONCENTRATOR_REPLY_S: Final = 30.0


def mqtt_endpoint(table: LineTable) -> Endpoint:
    """The endpoint with its topics, of a DTU."""
    if table.endpoint.concentrator:
        return table.endpoint
    topics = Topics(table.up, table.down, table.codec, table.template, table.qos)
    return replace(table.endpoint, topics=topics)


def mqtt_reply_s(table: LineTable) -> float:
    """How long to wait for an answer where nothing is said: what is behind a broker is slower than a wire."""
    if "reply_s" in table.model_fields_set:
        return table.reply_s
    return _CONCENTRATOR_REPLY_S if table.endpoint.concentrator else _DTU_REPLY_S


def topics_problems(table: LineTable, where: Where) -> list[Problem]:
    """What a DTU's keys lack or say twice."""
    if table.endpoint.kind != "mqtt" or table.endpoint.concentrator:
        return []
    problems = [
        Problem(where(key), "is missing: a DTU has a topic each way", f"write the topic it {does}")
        for key, does in (("up", "publishes on"), ("down", "listens to"))
        if not getattr(table, key)
    ]
    if table.up and table.up == table.down:
        problems.append(Problem(where("down"), "is the same topic as up", "what is sent would be heard as an answer"))
    if table.template and not table.codec.startswith("json:"):
        problems.append(Problem(where("template"), f"means nothing to the codec {table.codec}", "remove the key"))
    return problems


def shared_topics(tables: Sequence[Any], file: str, endpoints: Sequence[Endpoint | None]) -> list[Problem]:
    """Topics of a broker on which two DTUs would get in each other's way."""
    problems: list[Problem] = []
    seen: dict[tuple[str, str], int] = {}
    for number, (table, endpoint) in enumerate(zip(tables, endpoints, strict=True), start=1):
        if endpoint is None or endpoint.kind != "mqtt" or endpoint.concentrator:
            continue
        for key in ("up", "down"):
            topic = table.get(key)
            if not isinstance(topic, str) or not topic:
                continue
            other = seen.setdefault((endpoint.broker, topic), number)
            if other != number:
                what = f"line[{other}] has the topic {shown(topic)} already"
                remedy = "a DTU is one line: put all its meters on it, and give each DTU topics of its own"
                problems.append(Problem(f"{file}: line[{number}].{key}", what, remedy))
    return problems


def broker_problems(
    endpoint: Endpoint, brokers: Sequence[BrokerSettings], named: Sequence[str], where: Where
) -> list[Problem]:
    """Whether the line's broker is in site.toml, and lets its concentrator's messages in. named: every broker there,
    those with problems of their own too."""
    if endpoint.kind != "mqtt":
        return []
    if endpoint.broker not in named:
        remedy = nearest(endpoint.broker, named, none="add a table [[mqtt]] with its name, host and port")
        return [Problem(where("endpoint"), f"there is no broker {endpoint.broker!r}", remedy)]
    broker = next((one for one in brokers if one.name == endpoint.broker), None)
    if broker is not None and endpoint.concentrator and not broker.owns(endpoint.concentrator):
        what = f"concentrator {endpoint.concentrator} is not among those of broker {broker.name}"
        return [Problem(where("endpoint"), what, "add it to concentrators of [[mqtt]]")]
    return []
