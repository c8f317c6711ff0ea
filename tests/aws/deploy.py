"""The template as a stack, as `sam deploy` would make it: code to S3, the template with its places, a stack by it.

`sam package` puts each function's build into a bucket and writes its place for `CodeUri`; this does the same with binaries that
are there already, since building is not what is shown here. MiniStack runs the SAM transform itself (aws-sam-translator).
"""

import hashlib
import io
import json
import pathlib
import subprocess
import tempfile
import zipfile

from samtranslator.yaml_helper import yaml_parse

CODE_BUCKET = "recount-code"
STACK = 120  # s


def packaged(template, binaries, s3):
    """The template as JSON text, its functions' code in S3."""
    s3.create_bucket(Bucket=CODE_BUCKET)
    document = yaml_parse(pathlib.Path(template).read_text())
    # MiniStack does not know the type. `test_queries.py` runs the queries.
    unknown = [name for name, resource in document["Resources"].items() if resource["Type"] == "AWS::Athena::NamedQuery"]
    for name in unknown:
        del document["Resources"][name]
    for name, resource in document["Resources"].items():
        if resource["Type"] != "AWS::Serverless::Function":
            continue
        metadata = resource.pop("Metadata")
        binary = metadata["BuildProperties"]["Binary"]
        body = zipped(pathlib.Path(binaries) / binary)
        key = f"{name}-{hashlib.sha256(body).hexdigest()}"
        s3.put_object(Bucket=CODE_BUCKET, Key=key, Body=body)
        resource["Properties"]["CodeUri"] = {"Bucket": CODE_BUCKET, "Key": key}
    return json.dumps(document)


def zipped(binary):
    """A deployment package: the binary, without its symbols, as `bootstrap` (Lambda Developer Guide, "provided.al2023")."""
    with tempfile.NamedTemporaryFile() as file:
        subprocess.run(["strip", "-s", "-o", file.name, str(binary)], check=True)
        stripped = pathlib.Path(file.name).read_bytes()
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w", zipfile.ZIP_STORED) as archive:
        entry = zipfile.ZipInfo("bootstrap")
        entry.external_attr = 0o755 << 16
        archive.writestr(entry, stripped)
    return package.getvalue()


def deployed(cloudformation, s3, name, template, parameters, endpoint):
    """The outputs of a new stack."""
    # CloudFormation takes 51,200 bytes of a template in the request, a megabyte from S3.
    s3.put_object(Bucket=CODE_BUCKET, Key="template.json", Body=template.encode())
    cloudformation.create_stack(
        StackName=name,
        TemplateURL=f"{endpoint}/{CODE_BUCKET}/template.json",
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    waiter = cloudformation.get_waiter("stack_create_complete")
    try:
        waiter.wait(StackName=name, WaiterConfig={"Delay": 1, "MaxAttempts": STACK})
    except Exception as error:
        events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
        failed = [f"{e['LogicalResourceId']}: {e.get('ResourceStatusReason')}" for e in events if "FAILED" in e["ResourceStatus"]]
        raise RuntimeError(f"the stack was not made: {failed}") from error
    stack = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
