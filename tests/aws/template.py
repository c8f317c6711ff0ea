"""A template of infra/aws as CloudFormation would see it: its functions resolved for given parameters.

A reference to a resource becomes `<Name>`, an attribute `<Name.Arn>`; parameters take their defaults unless given.
"""

import functools
import pathlib
import re

from cfnlint.decode import cfn_yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PATH = ROOT / "infra/aws/template.yaml"
OPERATOR = ROOT / "infra/aws/operator.yaml"
PSEUDO = {
    "AWS::Region": "us-east-1",
    "AWS::AccountId": "123456789012",
    "AWS::Partition": "aws",
    "AWS::StackName": "recount",
}
NOTHING = object()


@functools.cache
def raw(path=PATH):
    return cfn_yaml.load(str(path))


class Template:
    def __init__(self, path=PATH, **parameters):
        self.raw = raw(path)
        unknown = set(parameters) - set(self.raw["Parameters"])
        if unknown:
            raise KeyError(f"no such parameters: {sorted(unknown)}")
        defaults = {name: parameter["Default"] for name, parameter in self.raw["Parameters"].items() if "Default" in parameter}
        self.parameters = {**PSEUDO, **defaults, **parameters}
        resources = self.raw["Resources"].items()
        self.resources = {name: self.resolved(one) for name, one in resources if self.is_there(one)}
        self.outputs = {name: self.resolved(one) for name, one in self.raw["Outputs"].items() if self.is_there(one)}
        self.globals = self.resolved(self.raw.get("Globals", {}))

    def of_type(self, kind):
        return {name: one for name, one in self.resources.items() if one["Type"] == kind}

    def properties(self, name):
        return self.resources[name]["Properties"]

    def is_there(self, one):
        return "Condition" not in one or self.condition(one["Condition"])

    def condition(self, name):
        return self.truth(self.raw["Conditions"][name])

    def truth(self, test):
        ((function, of),) = test.items()
        match function:
            case "Condition":
                return self.condition(of)
            case "Fn::Equals":
                one, other = (str(self.resolved(side)) for side in of)
                return one == other
            case "Fn::Not":
                return not self.truth(of[0])
            case "Fn::And":
                return all(self.truth(part) for part in of)
        raise ValueError(f"what is {function}?")

    def resolved(self, node):
        value = self.value(node)
        if value is NOTHING:
            raise ValueError(f"nothing here: {node}")
        return value

    def value(self, node):
        if isinstance(node, list):
            values = [self.value(part) for part in node]
            return [value for value in values if value is not NOTHING]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((function, of),) = node.items()
            match function:
                case "Ref":
                    return NOTHING if of == "AWS::NoValue" else self.parameters.get(of, f"<{of}>")
                case "Fn::GetAtt":
                    return f"<{of if isinstance(of, str) else '.'.join(of)}>"
                case "Fn::If":
                    name, then, otherwise = of
                    return self.value(then if self.condition(name) else otherwise)
                case "Fn::Sub":
                    text, own = (of, {}) if isinstance(of, str) else of
                    own = {name: self.resolved(value) for name, value in own.items()}
                    return re.sub(r"\$\{([^!}]+)\}", lambda found: self.named(found[1], own), text)
        values = {name: self.value(of) for name, of in node.items()}
        return {name: value for name, value in values.items() if value is not NOTHING}

    def named(self, name, own):
        return str(own[name] if name in own else self.parameters.get(name, f"<{name}>"))
