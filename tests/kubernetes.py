"""What no schema of Kubernetes says about kubernetes/: names that must be the same in two places, and times that fit."""

import sys

import yaml

# How long `RedisSessionLayer::close` may take, in seconds: docs/start-and-stop.md.
CLOSE = 33

every = [one for name in sys.argv[1:] for one in yaml.safe_load_all(open(name))]
of_kind = lambda *kinds: [one for one in every if one["kind"] in kinds]
workloads = of_kind("Deployment", "StatefulSet")
pods = {one["metadata"]["name"]: one["spec"]["template"] for one in workloads}
assert set(pods) == {"shop", "redis"}, pods.keys()
labels = {name: pod["metadata"]["labels"] for name, pod in pods.items()}
container = lambda name: pods[name]["spec"]["containers"][0]


def selects(selector, name):
    return selector and selector.items() <= labels[name].items()


def ports(name):
    return {key for port in container(name)["ports"] for key in (port["name"], port["containerPort"])}


for one in workloads + of_kind("PodDisruptionBudget"):
    assert selects(one["spec"]["selector"]["matchLabels"], one["metadata"]["name"]), one
for service in of_kind("Service"):
    name = service["metadata"]["name"]
    assert selects(service["spec"]["selector"], name), name
    assert all(port["targetPort"] in ports(name) for port in service["spec"]["ports"]), name

# Nobody but the shop comes to Redis, and Redis goes nowhere; the shop goes to Redis and to the name service.
policies = {policy["metadata"]["name"]: policy["spec"] for policy in of_kind("NetworkPolicy")}
assert set(policies) == set(pods), policies.keys()
for name, policy in policies.items():
    assert selects(policy["podSelector"]["matchLabels"], name), name
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"], name
    assert all(port["port"] in ports(name) for rule in policy["ingress"] for port in rule["ports"]), name
[to_redis] = policies["redis"]["ingress"]
[peer] = to_redis["from"]
assert list(peer) == ["podSelector"] and peer["podSelector"] == {"matchLabels": labels["shop"]}, peer
assert policies["redis"]["egress"] == [], "Redis goes nowhere"
[redis, names] = policies["shop"]["egress"]
assert redis["to"] == [{"podSelector": {"matchLabels": labels["redis"]}}], redis
assert {port["port"] for port in redis["ports"]} <= ports("redis"), redis
assert {port["port"] for port in names["ports"]} == {53}, names

# Readiness knows of Redis, liveness does not, and a pod may take as long to end as it needs.
shop = container("shop")
assert shop["readinessProbe"]["httpGet"]["path"] == "/ready"
assert shop["livenessProbe"]["httpGet"]["path"] == "/about"
assert "startupProbe" not in shop
_, pause = shop["lifecycle"]["preStop"]["exec"]["command"]
assert pods["shop"]["spec"]["terminationGracePeriodSeconds"] >= int(pause) + CLOSE

# All secrets are in the Secret and the ConfigMap that the first lines tell how to make, and nowhere in a file.
told = open("kubernetes/shop.yaml").read()
for name in pods:
    for variable in container(name)["env"]:
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        is_secret = variable["name"].endswith(("PASSWORD", "KEY"))
        assert bool(reference) == is_secret, variable
        if reference:
            assert f"secret generic {reference['name']} " in told, reference
            assert f"--from-literal={reference['key']}=" in told, reference
    for volume in pods[name]["spec"].get("volumes", []):
        assert f"configmap {volume['configMap']['name']} " in told, volume
    spec = pods[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] and not spec["automountServiceAccountToken"], name
print(f"kubernetes: {len(every)} objects fit together")
