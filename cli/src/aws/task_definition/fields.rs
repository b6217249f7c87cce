//! The fields of the API. A field that a later SDK has fails a test until this list says what natsctl does with it; what it
//! says is compared and shown before that, too.

use std::collections::BTreeSet;

use aws_sdk_ecs::types;

use crate::aws::api::fields;

#[track_caller]
fn check(schema: &aws_smithy_schema::Schema<'static>, known: &str) {
    let known: BTreeSet<String> = known.split_whitespace().map(str::to_owned).collect();
    let (new, gone): (Vec<_>, Vec<_>) =
        (fields(schema).difference(&known).cloned().collect(), known.difference(&fields(schema)).cloned().collect());
    let name = schema.shape_id().as_str();
    assert!(
        new.is_empty() && gone.is_empty(),
        "{name}: the API has {new:?} more, and no longer {gone:?}; see docs/aws.md"
    );
}

#[test]
fn the_fields_of_a_task_definition_are_known() {
    check(
        types::TaskDefinition::SCHEMA,
        "taskDefinitionArn containerDefinitions family taskRoleArn executionRoleArn networkMode revision volumes status \
         requiresAttributes placementConstraints compatibilities runtimePlatform requiresCompatibilities cpu memory \
         inferenceAccelerators pidMode ipcMode proxyConfiguration registeredAt deregisteredAt deleteRequestedAt registeredBy \
         ephemeralStorage enableFaultInjection",
    );
    check(types::RuntimePlatform::SCHEMA, "cpuArchitecture operatingSystemFamily");
    check(types::EphemeralStorage::SCHEMA, "sizeInGiB");
    check(types::ProxyConfiguration::SCHEMA, "type containerName properties");
}

#[test]
fn the_fields_of_a_container_are_known() {
    check(
        types::ContainerDefinition::SCHEMA,
        "name image repositoryCredentials cpu memory memoryReservation links portMappings essential restartPolicy entryPoint \
         command environment environmentFiles mountPoints volumesFrom linuxParameters secrets dependsOn startTimeout stopTimeout \
         versionConsistency hostname user workingDirectory disableNetworking privileged readonlyRootFilesystem dnsServers \
         dnsSearchDomains extraHosts dockerSecurityOptions interactive pseudoTerminal dockerLabels ulimits logConfiguration \
         healthCheck systemControls resourceRequirements firelensConfiguration credentialSpecs",
    );
    check(types::RepositoryCredentials::SCHEMA, "credentialsParameter");
    check(types::PortMapping::SCHEMA, "containerPort hostPort protocol name appProtocol containerPortRange");
    check(types::ContainerRestartPolicy::SCHEMA, "enabled ignoredExitCodes restartAttemptPeriod");
    check(types::KeyValuePair::SCHEMA, "name value");
    check(types::EnvironmentFile::SCHEMA, "value type");
    check(types::MountPoint::SCHEMA, "sourceVolume containerPath readOnly");
    check(types::VolumeFrom::SCHEMA, "sourceContainer readOnly");
    check(
        types::LinuxParameters::SCHEMA,
        "capabilities devices initProcessEnabled sharedMemorySize tmpfs maxSwap swappiness",
    );
    check(types::KernelCapabilities::SCHEMA, "add drop");
    check(types::Tmpfs::SCHEMA, "containerPath size mountOptions");
    check(types::Secret::SCHEMA, "name valueFrom");
    check(types::ContainerDependency::SCHEMA, "containerName condition");
    check(types::HostEntry::SCHEMA, "hostname ipAddress");
    check(types::Ulimit::SCHEMA, "name softLimit hardLimit");
    check(types::LogConfiguration::SCHEMA, "logDriver options secretOptions");
    check(types::HealthCheck::SCHEMA, "command interval timeout retries startPeriod");
    check(types::SystemControl::SCHEMA, "namespace value");
    check(types::ResourceRequirement::SCHEMA, "value type sharingStrategy");
    check(types::FirelensConfiguration::SCHEMA, "type options");
}

#[test]
fn the_fields_of_a_volume_are_known() {
    check(
        types::Volume::SCHEMA,
        "name host dockerVolumeConfiguration efsVolumeConfiguration s3filesVolumeConfiguration \
         fsxWindowsFileServerVolumeConfiguration configuredAtLaunch",
    );
    check(
        types::EfsVolumeConfiguration::SCHEMA,
        "fileSystemId rootDirectory transitEncryption transitEncryptionPort authorizationConfig",
    );
    check(types::EfsAuthorizationConfig::SCHEMA, "accessPointId iam");
    check(types::HostVolumeProperties::SCHEMA, "sourcePath");
}

#[test]
fn the_fields_of_a_service_are_known() {
    check(
        types::Service::SCHEMA,
        "serviceArn serviceName clusterArn loadBalancers serviceRegistries status desiredCount runningCount pendingCount launchType \
         capacityProviderStrategy platformVersion platformFamily taskDefinition deploymentConfiguration taskSets deployments \
         roleArn events createdAt currentServiceDeployment currentServiceRevisions placementConstraints placementStrategy \
         networkConfiguration healthCheckGracePeriodSeconds schedulingStrategy deploymentController tags createdBy \
         enableECSManagedTags propagateTags enableExecuteCommand availabilityZoneRebalancing resourceManagementType",
    );
    check(
        types::Deployment::SCHEMA,
        "id status taskDefinition desiredCount pendingCount runningCount failedTasks createdAt updatedAt \
         capacityProviderStrategy launchType platformVersion platformFamily networkConfiguration rolloutState rolloutStateReason \
         serviceConnectConfiguration serviceConnectResources volumeConfigurations fargateEphemeralStorage \
         vpcLatticeConfigurations",
    );
    check(
        types::DeploymentConfiguration::SCHEMA,
        "deploymentCircuitBreaker maximumPercent minimumHealthyPercent alarms strategy bakeTimeInMinutes lifecycleHooks \
         linearConfiguration canaryConfiguration earlySuccessCriteria",
    );
    check(types::DeploymentCircuitBreaker::SCHEMA, "enable rollback resetOnHealthyTask thresholdConfiguration");
    check(types::DeploymentAlarms::SCHEMA, "alarmNames rollback enable");
    check(types::AwsVpcConfiguration::SCHEMA, "subnets securityGroups assignPublicIp");
    check(types::CapacityProviderStrategyItem::SCHEMA, "capacityProvider weight base");
    check(
        types::LoadBalancer::SCHEMA,
        "targetGroupArn loadBalancerName containerName containerPort advancedConfiguration",
    );
}
