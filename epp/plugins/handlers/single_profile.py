# SPDX-License-Identifier: Apache-2.0
"""`single-profile-handler`: one scheduling profile, run once for every request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from epp.api import InferenceRequest, Kind, PluginError, ProfileResult, ResourceExhausted, plugin


@plugin("single-profile-handler", Kind.PROFILE_HANDLER, any_parameters=True)
class SingleProfileHandler:
    """Runs the configured profile; its choice is what Envoy is told.

    Formula: all profiles in the first round, none in the second; the primary is the only result.
    Range: exactly one profile.
    Reads: nothing.
    Cost: O(1).
    Without data: a profile that failed refuses the request with 429.
    Origin: `single-profile-handler` of the Gateway API inference extension. It takes no parameters; any are ignored.
    """

    def pick_profiles(
        self, request: InferenceRequest, profiles: Sequence[str], results: Mapping[str, ProfileResult | None]
    ) -> Sequence[str]:
        """Every profile that has not run."""
        return () if results else profiles

    def primary(self, request: InferenceRequest, results: Mapping[str, ProfileResult | None]) -> str:
        """The only profile. Raises ResourceExhausted when it failed, PluginError when there is not exactly one."""
        if len(results) != 1:
            raise PluginError(
                f"single-profile-handler: {len(results)} profiles ran ({', '.join(results) or 'none'}), it takes"
                " exactly one; keep one of schedulingProfiles or use another profile handler"
            )
        name, result = next(iter(results.items()))
        if result is None:
            raise ResourceExhausted(f"failed to run scheduler profile '{name}'")
        return name
