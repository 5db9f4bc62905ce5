"""REST under the venue's weight budget: no burst of requests may ever ban the address that captures."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import trio

from harvest.errors import HarvestError
from harvest.log import get_logger

if TYPE_CHECKING:
    from types import TracebackType

    from harvest.settings import RestSettings
    from harvest.storage.bans import Bans
    from harvest.venues.protocol import RestRequest

log = get_logger("REST")

#: Without a Retry-After, stay away this long: a refusal that is ignored becomes a ban.
DEFAULT_PAUSE_S = 60.0
#: What may be spent at once; the rest of a minute's budget comes evenly over the minute.
BURST_SHARE = 1 / 6
#: A wait computed in floats ends a little before the weight is there.
ROUNDING = 1e-6
#: What can wait leaves this much of the burst to whatever cannot.
RESERVED_SHARE = 0.5
#: How often what can wait looks whether it is its turn.
PATIENCE_S = 0.5
BANNED = 418
#: No venue bans for longer than three days; what says more is not believed.
LONGEST_PAUSE_S = 3 * 86_400.0
USED_WEIGHT = "x-mbx-used-weight-1m"


class RestError(HarvestError):
    """A request that brought no answer that can be used.

    ``host`` is the one asked, ``status`` its HTTP status (None where it was not reached), ``retry_after_s`` how long the
    venue wants to be left alone (None where it did not say).
    """

    def __init__(
        self, host: str, path: str, why: str, *, status: int | None, retry_after_s: float | None = None
    ) -> None:
        self.host, self.path, self.status, self.retry_after_s = host, path, status, retry_after_s
        super().__init__(f"{host}{path.partition('?')[0]}: {why}")

    @property
    def unreachable(self) -> bool:
        """Tell whether the host could not be reached at all."""
        return self.status is None


class WeightBudget:
    """A token bucket of request weight, refilled evenly; the venue's own count corrects it.

    It gives at most ``per_minute`` in any minute and its burst together, and pauses for everybody when the venue says so.
    """

    def __init__(self, per_minute: float) -> None:
        self.per_minute = per_minute
        # Burst and refill within one minute together stay within the budget.
        self._burst = per_minute * BURST_SHARE
        self._per_second = (per_minute - self._burst) / 60
        self._tokens = self._burst
        self._refilled_at: float | None = None
        self._paused_until = -float("inf")
        #: Urgent requests that wait for weight.
        self._waiting = 0

    def _refill(self) -> None:
        now = trio.current_time()
        if self._refilled_at is not None:
            elapsed_s = now - self._refilled_at
            self._tokens = min(self._burst, self._tokens + elapsed_s * self._per_second)
        self._refilled_at = now

    async def spend(self, weight: float) -> None:
        """Wait until ``weight`` may be spent, and spend it."""
        weight = min(weight, self._burst)
        self._waiting += 1
        try:
            await self._take(weight)
        finally:
            self._waiting -= 1

    async def spend_patiently(self, weight: float) -> None:
        """Spend ``weight`` when nothing urgent waits for any, and a good part of the burst is left to what may come."""
        weight = min(weight, self._burst)
        needed = min(weight + self._burst * RESERVED_SHARE, self._burst)
        while True:
            self._refill()
            pause_s = self._paused_until - trio.current_time()
            if pause_s <= 0 and not self._waiting and self._tokens >= needed - ROUNDING:
                self._tokens -= weight
                return
            await trio.sleep(max(pause_s, (needed - self._tokens) / self._per_second, PATIENCE_S))

    async def _take(self, weight: float) -> None:
        while True:
            self._refill()
            pause_s = self._paused_until - trio.current_time()
            if pause_s > 0:
                await trio.sleep(pause_s)
            elif self._tokens >= weight - ROUNDING:
                self._tokens -= weight
                return
            else:
                await trio.sleep((weight - self._tokens) / self._per_second)

    def correct(self, used: float) -> None:
        """Take the venue's count of this minute into account: others may share the address."""
        self._refill()
        self._tokens = min(self._tokens, self.per_minute - used)

    def pause(self, seconds: float) -> None:
        """Let nothing through for ``seconds``, whoever asks."""
        self._paused_until = max(self._paused_until, trio.current_time() + seconds)


class RestClient:
    """Asks one venue's REST host. Use it as an async context manager; it begins by keeping to a ban that ``bans`` knows."""

    def __init__(
        self, base_url: str, *, weight_per_minute: int, settings: RestSettings, bans: Bans | None = None
    ) -> None:
        self.base_url = base_url
        self.host = urlsplit(base_url).netloc
        self.budget = WeightBudget(weight_per_minute * settings.weight_share)
        self._bans = bans
        self._client = httpx.AsyncClient(
            base_url=base_url, timeout=settings.timeout_s, headers={"User-Agent": "market-harvest"}
        )

    async def __aenter__(self) -> RestClient:
        if self._bans is not None:
            left_s = await trio.to_thread.run_sync(self._bans.seconds_left, self.host, time.time_ns())
            if left_s:
                log.warning(f"{self.host} has banned this address; not asking it for {left_s:.0f}s")
                self.budget.pause(left_s)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 2):
            await self._client.aclose()

    async def pay_patiently(self, request: RestRequest) -> None:
        """Wait until everything urgent has had its weight, and spend what ``request`` costs; then ``get`` it as paid."""
        await self.budget.spend_patiently(request.weight)

    async def get(self, request: RestRequest, *, is_paid: bool = False) -> bytes:
        """Return the body of the answer, after waiting for the weight that it costs, unless that is spent already.

        Raises:
            RestError: not reached in time, or any status but 200. After 429, 418 and 403 all requests pause.
        """
        await self.budget.spend(0 if is_paid else request.weight)
        try:
            response = await self._client.get(request.path)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            why = str(error) or type(error).__name__
            raise RestError(self.host, request.path, why, status=None) from error
        used = response.headers.get(USED_WEIGHT, "")
        if used.isdecimal():
            self.budget.correct(float(used))
        if response.status_code == httpx.codes.OK:
            return response.content
        retry_after_s = _retry_after_s(response)
        if response.status_code in (429, 418, 403):
            # Jitter: others behind the same address wait for the same second.
            pause_s = (retry_after_s or DEFAULT_PAUSE_S) + random.uniform(0, 1)
            self.budget.pause(pause_s)
            if response.status_code == BANNED and self._bans is not None:
                await self._remember_ban(self._bans, pause_s)
        why = f"HTTP {response.status_code} {response.text[:200]}"
        raise RestError(
            self.host, request.path, why, status=response.status_code, retry_after_s=retry_after_s
        )

    async def _remember_ban(self, bans: Bans, pause_s: float) -> None:
        log.error(
            f"{self.host} has banned this address for {pause_s:.0f}s; it is left alone, also by later runs"
        )
        try:
            await trio.to_thread.run_sync(bans.remember, self.host, time.time_ns() + round(pause_s * 1e9))
        except OSError as error:
            log.error(f"the ban cannot be remembered: {error.strerror}")


def _retry_after_s(response: httpx.Response) -> float | None:
    value = response.headers.get("retry-after", "")
    return min(float(value[:9]), LONGEST_PAUSE_S) if value.isdecimal() else None
